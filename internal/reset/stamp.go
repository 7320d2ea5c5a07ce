package reset

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vincent-petithory/dataurl"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
)

// File is a file that the stamp delivers.
type File struct {
	Path string
	Mode fs.FileMode
	Data secret.Value
	// Remote says that the stamp has the file's address alone, not its content.
	Remote bool
}

// ignition is the part of an Ignition config (spec 3) that is needed to find files.
type ignition struct {
	Storage struct {
		Files []struct {
			Path     string `json:"path"`
			Mode     *int   `json:"mode"`
			Contents struct {
				Source      *string `json:"source"`
				Compression string  `json:"compression"`
			} `json:"contents"`
		} `json:"files"`
	} `json:"storage"`
}

// maxFile bounds what a compressed file may hold; a stamp's are small.
const maxFile = 64 << 20

// ParseStamp reads the files of an Ignition config. Its errors quote nothing of it:
// it holds keys.
func ParseStamp(config []byte) ([]File, error) {
	var ign ignition
	if err := json.Unmarshal(config, &ign); err != nil {
		return nil, errors.New("the stamp is no Ignition config")
	}
	var out []File
	for _, f := range ign.Storage.Files {
		if !filepath.IsAbs(f.Path) || filepath.Clean(f.Path) != f.Path {
			return nil, errors.New("the stamp has a file whose path is not absolute and clean")
		}
		file := File{Path: f.Path, Mode: 0o644}
		if f.Mode != nil {
			file.Mode = fs.FileMode(*f.Mode) & fs.ModePerm
		}
		if f.Contents.Source != nil && *f.Contents.Source != "" {
			if !strings.HasPrefix(*f.Contents.Source, "data:") {
				file.Remote = true
				out = append(out, file)
				continue
			}
			data, err := decode(*f.Contents.Source, f.Contents.Compression)
			if err != nil {
				return nil, fmt.Errorf("the stamp's file %s: %w", f.Path, err)
			}
			file.Data = secret.New(data)
		}
		out = append(out, file)
	}
	return out, nil
}

func decode(source, compression string) ([]byte, error) {
	u, err := dataurl.DecodeString(source)
	if err != nil {
		return nil, errors.New("its content is no data URL")
	}
	switch compression {
	case "":
		return u.Data, nil
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(u.Data))
		if err != nil {
			return nil, errors.New("its content is not gzip")
		}
		data, err := io.ReadAll(io.LimitReader(z, maxFile+1))
		if err != nil || len(data) > maxFile {
			return nil, errors.New("its content cannot be unpacked")
		}
		return data, nil
	}
	return nil, errors.New("its content is compressed in an unknown way")
}

// restore puts back what the next first boot needs and the node does not have any
// more: files in the certificates' folder that somebody removed, such as real
// kubeadm's reset, and the boot plan, whose token firstboot removes once it is used.
func restore(_ context.Context, n Node) ([]Change, error) {
	if n.Plan == nil {
		return nil, nil
	}
	stamp, err := n.Machine.Stamp()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, n.checkKeys(nil)
	}
	if err != nil {
		return nil, err
	}
	var out []Change
	for _, f := range stamp {
		path := n.Paths.At(f.Path)
		if f.Remote || !n.wants(path) {
			continue
		}
		have, err := os.ReadFile(path)
		if err == nil && (path != n.Paths.BootPlan() || secret.New(have).Equal(f.Data)) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		out = append(out, Change{Text: "put back " + f.Path + " from the stamp", Do: func(context.Context) error {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			return atomicfile.WriteFile(path, f.Data.Reveal(), f.Mode)
		}})
	}
	return out, n.checkKeys(stamp)
}

// wants reports whether a file of the stamp belongs to what a reset empties, or is
// the boot plan. Other files are the administrator's since Ignition wrote them.
func (n Node) wants(path string) bool {
	return path == n.Paths.BootPlan() || slices.ContainsFunc(n.folders(), func(dir string) bool { return strings.HasPrefix(path, dir+"/") })
}

// checkKeys warns if the next first boot will miss a key. In external-CA mode it is
// meant to.
func (n Node) checkKeys(stamp []File) error {
	if n.Plan.Role == bootplan.RoleJoinWorker {
		return nil
	}
	for _, name := range clusterKeys {
		path := n.Paths.PKI(name)
		inStamp := slices.ContainsFunc(stamp, func(f File) bool { return n.Paths.At(f.Path) == path && !f.Remote })
		_, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && !inStamp {
			n.Report.Warn("%s is neither on this node nor in its stamp: the next first boot will not have it", n.shown(path))
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
