module github.com/kiln-os/kiln/payload/pause

go 1.26.6
