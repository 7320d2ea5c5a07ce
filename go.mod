module github.com/kiln-os/kiln

go 1.26.0

require (
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	pault.ag/go/debian v0.16.0 // indirect
)
