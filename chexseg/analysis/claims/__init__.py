"""The paper's claims and a study's verdict on each."""
