package build

import (
	"fmt"
	"io"
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
			content := e.Content
			if f.ReserveMiB != 0 {
				if content, err = reserved(content, f.ReserveMiB); err != nil {
					return nil, fmt.Errorf("boot partition: %s: %w", p, err)
				}
			}
			out = append(out, esp.File{Path: to, Content: content})
		}
		if found == 0 || found > 1 && f.To != "" {
			return nil, fmt.Errorf("boot partition: the packages have %d files %s; the profile has to name others", found, f.From)
		}
	}
	return out, nil
}

// reserved is a device tree with its first memory reserved.
func reserved(dtb tree.Content, mib int) (tree.Content, error) {
	r, err := dtb.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	b, err = reserveLowMemory(b, uint64(mib)<<20)
	return tree.Bytes(b), err
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
