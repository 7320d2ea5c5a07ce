package live

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"slices"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/sparse"
)

// Dir is the archive's folder, with the files below.
const Dir = "kiln"

// Files of Dir that a disk is made of.
const (
	// DiskFile says how: a Disk as JSON.
	DiskFile   = "disk.json"
	UsrFile    = "usr"        // /usr's file system
	VerityFile = "usr-verity" // its hash tree
	RestFile   = "rest"       // what is left: partition tables, boot partition
)

// Disk is the disk image that an archive was made of, put together of the archive's
// files: those that the node boots from, and what else the image has, so that nothing
// is there twice.
type Disk struct {
	Size int64 `json:"bytes"`
	// SHA256 is that of RestFile; the other files are checked by dm-verity.
	SHA256 string `json:"restSHA256"`
	// Parts are what is not zeros, in order.
	Parts []Part `json:"parts"`
}

// Part is a part of a disk: Size bytes at At, which are those of File from From on.
type Part struct {
	At   int64  `json:"at"`
	Size int64  `json:"bytes"`
	File string `json:"file"`
	From int64  `json:"from"`
}

func (p Part) end() int64 { return p.At + p.Size }

// piece is how much is looked at for zeros at once.
const piece = 64 << 10

// addDisk adds to t what a disk is made of besides files that it has already, which are
// the parts known, in order.
func addDisk(ctx context.Context, t *tree.Tree, src *os.File, known []Part) error {
	st, err := src.Stat()
	if err != nil {
		return err
	}
	numbers, err := sparse.Blocks(src, piece)
	if err != nil {
		return err
	}
	used := make(map[int64]bool, len(numbers)) // not in holes
	for _, n := range numbers {
		used[n] = true
	}
	d, sum := Disk{Size: st.Size()}, sha256.New()
	rest := pieces{src: src}
	addGap := func(from, to int64) error {
		for from < to {
			end := min((from/piece+1)*piece, to)
			if used[from/piece] {
				if err := errors.Join(ctx.Err(), rest.add(&d, sum, from, end)); err != nil {
					return err
				}
			}
			from = end
		}
		return nil
	}
	at := int64(0)
	for _, k := range known {
		if err := addGap(at, k.At); err != nil {
			return err
		}
		d.Parts = append(d.Parts, k)
		at = k.end()
	}
	if err := addGap(at, d.Size); err != nil {
		return err
	}
	d.SHA256 = hex.EncodeToString(sum.Sum(nil))
	about, err := json.Marshal(d)
	if err != nil {
		return err
	}
	t.AddFile(path.Join(Dir, DiskFile), 0o400, append(about, '\n'))
	t.Set(path.Join(Dir, RestFile), &tree.Entry{Type: tree.File, Mode: 0o400, Content: rest})
	return nil
}

// pieces is the content of parts of a file, one after the other.
type pieces struct {
	src   io.ReaderAt
	parts []Part
	size  int64
}

// add adds the bytes from at to to, unless they are zeros.
func (p *pieces) add(d *Disk, sum hash.Hash, at, to int64) error {
	b := make([]byte, to-at)
	if _, err := p.src.ReadAt(b, at); err != nil {
		return err
	}
	if len(bytes.Trim(b, "\x00")) == 0 {
		return nil
	}
	sum.Write(b)
	if last := len(d.Parts) - 1; last >= 0 && d.Parts[last].File == RestFile && d.Parts[last].end() == at {
		d.Parts[last].Size += to - at
		p.parts[len(p.parts)-1].Size += to - at
	} else {
		d.Parts = append(d.Parts, Part{At: at, Size: to - at, File: RestFile, From: p.size})
		p.parts = append(p.parts, d.Parts[len(d.Parts)-1])
	}
	p.size += to - at
	return nil
}

func (p pieces) Size() int64 { return p.size }

func (p pieces) Open() (io.ReadCloser, error) {
	var readers []io.Reader
	for _, part := range p.parts {
		readers = append(readers, io.NewSectionReader(p.src, part.At, part.Size))
	}
	return io.NopCloser(io.MultiReader(readers...)), nil
}

// maxDisk bounds what a Disk may say of its size.
const maxDisk = 64 << 40

// ParseDisk reads a DiskFile.
func ParseDisk(b []byte) (*Disk, error) {
	d := &Disk{}
	if err := json.Unmarshal(b, d); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", DiskFile, err)
	}
	if d.Size <= 0 || d.Size > maxDisk || len(d.Parts) == 0 {
		return nil, fmt.Errorf("%s is damaged: a disk of %d bytes in %d parts", DiskFile, d.Size, len(d.Parts))
	}
	at := int64(0)
	for _, p := range d.Parts {
		known := p.File == UsrFile || p.File == VerityFile || p.File == RestFile
		if !known || p.At < at || p.Size <= 0 || p.From < 0 || p.Size > d.Size-p.At {
			return nil, fmt.Errorf("%s is damaged: %d bytes of %q at byte %d, where the part before ends at %d, and the disk at %d", DiskFile, p.Size, p.File, p.At, at, d.Size)
		}
		at = p.end()
	}
	return d, nil
}

// CheckRest compares RestFile with its checksum.
func (d *Disk) CheckRest(r io.Reader) error {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != d.SHA256 {
		return errors.New("the boot partition in this initramfs is not what was written: its checksum does not match; write the files that this machine boots from again")
	}
	return nil
}

// Used says whether there is anything but zeros in n bytes at a place of the disk.
func (d *Disk) Used(at, n int64) bool {
	return slices.ContainsFunc(d.Parts, func(p Part) bool { return p.At < at+n && at < p.end() })
}

// Reader reads the disk out of the files, by name.
func (d *Disk) Reader(files map[string]io.ReaderAt) io.ReaderAt { return reader{d, files} }

type reader struct {
	d     *Disk
	files map[string]io.ReaderAt
}

func (r reader) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at >= r.d.Size {
		return 0, io.EOF
	}
	short := int64(len(b)) > r.d.Size-at
	if short {
		b = b[:r.d.Size-at]
	}
	clear(b)
	for _, p := range r.d.Parts {
		from, to := max(at, p.At), min(at+int64(len(b)), p.end())
		if from >= to {
			continue
		}
		n, err := r.files[p.File].ReadAt(b[from-at:to-at], p.From+from-p.At)
		if int64(n) < to-from {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, fmt.Errorf("%s at byte %d: %w", p.File, p.From+from-p.At, err)
		}
	}
	if short {
		return len(b), io.EOF
	}
	return len(b), nil
}
