"""The paper's figures and the graph of a study's runs: rows, and their drawing."""
