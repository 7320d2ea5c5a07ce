package build

import (
	"fmt"
	"path"

	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/profiles"
)

// bootFiles finds what a profile's boot partition has besides what every one has, in
// the packages' tree t.
func bootFiles(t *tree.Tree, list []profiles.BootFile) ([]esp.File, error) {
	var out []esp.File
	for _, f := range list {
		if f.Text != "" {
			out = append(out, esp.File{Path: f.To, Content: tree.Bytes(f.Text)})
			continue
		}
		found := 0
		for _, p := range t.Paths() {
			if ok, err := path.Match(f.From, p); err != nil {
				return nil, fmt.Errorf("boot partition: %s: %w", f.From, err)
			} else if !ok {
				continue
			}
			_, e, err := t.Lookup(p)
			if err != nil {
				return nil, fmt.Errorf("boot partition: %w", err)
			}
			if e.Type != tree.File {
				continue
			}
			found++
			to := f.To
			if to == "" {
				to = path.Base(p)
			}
			out = append(out, esp.File{Path: to, Content: e.Content})
		}
		if found == 0 || found > 1 && f.To != "" {
			return nil, fmt.Errorf("boot partition: the packages have %d files %s; the profile has to name others", found, f.From)
		}
	}
	return out, nil
}

// addProfileFiles lays a profile's files and links over the operating system.
func addProfileFiles(t *tree.Tree, p profiles.Profile) {
	for name, text := range p.Files {
		t.AddFile(name, 0o644, []byte(text))
	}
	for name, target := range p.Links {
		t.AddSymlink(name, target)
	}
}
