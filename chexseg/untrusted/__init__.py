"""Check JSON and files in torch's formats of others before a library reads them."""
