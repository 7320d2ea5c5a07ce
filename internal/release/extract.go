package release

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

const (
	maxProgram = 1 << 30 // bytes; the largest program of Kubernetes has a tenth of it
	maxArchive = 8 << 30 // bytes, unpacked
	shownNames = 12      // of an archive, in an error
)

// extract writes the members of an archive into dir, each under its program's name.
func extract(archive string, members map[string]string, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := decompress(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return err
	}
	return extractTar(&limited{r, maxArchive}, members, func(program string, content io.Reader) error {
		out, err := os.OpenFile(filepath.Join(dir, program), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, content)
		return errors.Join(err, out.Sync(), out.Close())
	})
}

// decompress tells the format by its first bytes, whatever the file is called.
func decompress(r *bufio.Reader) (io.Reader, error) {
	head, err := r.Peek(6)
	if err != nil {
		return nil, fmt.Errorf("it is too short for an archive: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return xz.NewReader(r, 0)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return nil, errors.New("it is a zip archive; tar archives are read, plain or compressed by gzip, xz or zstd")
	}
	return r, nil
}

// extractTar calls write for the content of each member, in the archive's order.
func extractTar(r io.Reader, members map[string]string, write func(program string, content io.Reader) error) error {
	wanted := map[string][]string{}
	for program, p := range members {
		p = path.Clean(p)
		wanted[p] = append(wanted[p], program)
	}
	found := map[string]bool{}
	var have []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("not a whole tar archive: %w", err)
		}
		p := path.Clean(strings.TrimLeft(h.Name, "/"))
		if h.Typeflag == tar.TypeReg && len(have) <= shownNames {
			have = append(have, p)
		}
		names := wanted[p]
		switch {
		case len(names) == 0:
			continue
		case found[p]:
			return fmt.Errorf("%s is in the archive twice", p)
		case len(names) > 1:
			slices.Sort(names)
			return fmt.Errorf("%s is the member of %s", p, strings.Join(names, " and of "))
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%s is no regular file in the archive", p)
		case h.Size > maxProgram:
			return fmt.Errorf("%s has %d bytes: no program is that large", p, h.Size)
		}
		found[p] = true
		if err := write(names[0], tr); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	var lost []string
	for p := range wanted {
		if !found[p] {
			lost = append(lost, p)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	slices.Sort(lost)
	if len(have) > shownNames {
		have = append(have[:shownNames], "…")
	}
	return fmt.Errorf("the archive has no %s; it has %s", strings.Join(lost, ", "), strings.Join(have, ", "))
}

// limited fails after n bytes: an archive that was made to fill disks ends there.
type limited struct {
	r io.Reader
	n int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.n -= int64(n); l.n < 0 {
		return 0, fmt.Errorf("it has more than %d bytes", int64(maxArchive))
	}
	return n, err
}
