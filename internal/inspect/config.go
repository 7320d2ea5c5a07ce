package inspect

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/vincent-petithory/dataurl"

	"github.com/kiln-os/kiln/internal/secret"
)

// config is what an Ignition config puts on a node.
type config struct {
	types.Config
	files map[string]file
	// elsewhere are the sources of what is not in the config.
	elsewhere []string
}

// file is a file of the node.
type file struct {
	mode int
	data secret.Value
}

// private says that nobody but the owner may read the file.
func (f file) private() bool { return f.mode&0o077 == 0 }

const (
	defaultMode = 0o644    // Ignition's
	maxContent  = 16 << 20 // bytes of a file, decompressed
)

// parseConfig reads an Ignition config. No error quotes it.
func parseConfig(raw secret.Value) (*config, error) {
	parsed, _, err := v3_6.ParseCompatibleVersion(raw.Reveal())
	if err != nil {
		// The report of what is wrong may quote the config.
		return nil, errors.New("the stamp's config is not one that this version of imagegen's Ignition reads: a node would stop at it")
	}
	c := &config{Config: parsed, files: map[string]file{}}
	for _, f := range parsed.Storage.Files {
		n := file{mode: defaultMode}
		if f.Mode != nil {
			n.mode = *f.Mode
		}
		var whole []byte
		for _, r := range append([]types.Resource{f.Contents}, f.Append...) {
			b, err := c.content(r)
			if err != nil {
				return nil, fmt.Errorf("the stamp's file %s: %w", f.Path, err)
			}
			whole = append(whole, b...)
		}
		n.data = secret.New(whole)
		c.files[f.Path] = n
	}
	for _, r := range append([]types.Resource{parsed.Ignition.Config.Replace}, parsed.Ignition.Config.Merge...) {
		if r.Source != nil && *r.Source != "" {
			c.elsewhere = append(c.elsewhere, "a further config")
		}
	}
	return c, nil
}

// content decodes a resource. One that lies elsewhere has none here.
func (c *config) content(r types.Resource) ([]byte, error) {
	if r.Source == nil || *r.Source == "" {
		return nil, nil
	}
	u, err := dataurl.DecodeString(*r.Source)
	if err != nil {
		// The error may quote the content, and a URL may hold a password.
		c.elsewhere = append(c.elsewhere, "the content of a file")
		return nil, nil
	}
	if r.Compression == nil || *r.Compression == "" {
		return u.Data, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(u.Data)) // the only compression that Ignition has
	if err != nil {
		return nil, errors.New("it is not compressed by gzip")
	}
	b, err := io.ReadAll(io.LimitReader(z, maxContent+1))
	if err == nil && len(b) > maxContent {
		err = fmt.Errorf("it has more than %d bytes", maxContent)
	}
	return b, err
}
