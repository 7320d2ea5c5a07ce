package reset

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/host"
)

// Marker is the file that exists while a reset is under way. Run alone writes it;
// `firstboot run` reads it, and goes on with the reset.
type Marker struct {
	Version int `json:"version"`
	Options
}

const markerVersion = 1

// Pending returns the marker of a reset that was cut off, or nil.
func Pending(paths host.Paths) (*Marker, error) {
	data, err := os.ReadFile(paths.Reset())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m Marker
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; firstboot reset writes it anew", paths.Reset(), err)
	}
	if m.Version != markerVersion {
		return nil, fmt.Errorf("%s has version %d; this firstboot reads version %d", paths.Reset(), m.Version, markerVersion)
	}
	return &m, nil
}

// mark notes that a reset is under way, and then that the node is not set up any
// more: firstboot.service starts at the next boot.
func (n Node) mark() error {
	data, err := json.MarshalIndent(Marker{markerVersion, n.Options}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(n.Paths.Reset()), 0o755); err != nil {
		return err
	}
	if err := atomicfile.WriteFile(n.Paths.Reset(), append(data, '\n'), 0o600); err != nil {
		return err
	}
	return removeFile(n.Paths.Done())
}

// unmark ends the reset. Everything else is on the disk before.
func (n Node) unmark() error {
	if err := host.Flush(filepath.Dir(n.Paths.Reset())); err != nil {
		return err
	}
	if err := removeFile(n.Paths.Reset()); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(n.Paths.Reset()))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
