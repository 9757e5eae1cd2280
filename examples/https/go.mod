module github.com/sslstream/sslstream/examples/https

go 1.26.0

require (
	github.com/sslstream/sslstream v0.0.0
	github.com/stretchr/testify v1.12.1
	golang.org/x/net v0.62.0
)

require (
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

replace github.com/sslstream/sslstream => ../..
