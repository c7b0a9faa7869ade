"""Videos that the service fetches by URL: `urls` reads one, `addresses` says where it may lead, `exchange` asks there,
`fetch` puts them together. All four hold even for a URL that a hostile client made up and a hostile server answers."""
