// Package cpio writes "newc" archives, the format of the kernel's initramfs
// (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
package cpio

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"github.com/kiln-os/kiln/images/tree"
)

// File types of st_mode.
const (
	sIFIFO = 0o010000
	sIFCHR = 0o020000
	sIFDIR = 0o040000
	sIFBLK = 0o060000
	sIFREG = 0o100000
	sIFLNK = 0o120000
)

// trailer is the name of the entry that ends an archive.
const trailer = "TRAILER!!!"

// Write writes the whole tree, every entry with the time mtime, followed by the
// trailer and zeros up to a multiple of 512 bytes. Inode numbers count from 1 in
// the tree's order. A hard link becomes a file of its own with the same bytes.
func Write(w io.Writer, t *tree.Tree, mtime time.Time) error {
	c := &counter{w: bufio.NewWriterSize(w, 1<<16)}
	ino := 0
	err := t.Walk(func(p string, e *tree.Entry) error {
		ino++
		if e.Type == tree.Hardlink {
			_, file, err := t.Lookup(p)
			if err != nil {
				return fmt.Errorf("cpio %s: %w", p, err)
			}
			e = file
		}
		if err := c.entry(p, e, ino, mtime.Unix()); err != nil {
			return fmt.Errorf("cpio %s: %w", p, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.header(trailer, 0, 0, 0, 0, 1, 0, 0, 0, 0); err != nil {
		return err
	}
	if err := c.pad(512); err != nil {
		return err
	}
	return c.w.Flush()
}

// Size returns how many bytes Write writes. It reads no file.
func Size(t *tree.Tree) (int64, error) {
	const header = 110
	up := func(n int64) int64 { return (n + 3) &^ 3 }
	total := up(header + int64(len(trailer)) + 1)
	err := t.Walk(func(p string, e *tree.Entry) error {
		if e.Type == tree.Hardlink {
			_, file, err := t.Lookup(p)
			if err != nil {
				return fmt.Errorf("cpio %s: %w", p, err)
			}
			e = file
		}
		total += up(header + int64(len(p)) + 1)
		switch e.Type {
		case tree.File:
			total += up(e.Content.Size())
		case tree.Symlink:
			total += up(int64(len(e.Link)))
		}
		return nil
	})
	return (total + 511) &^ 511, err
}

type counter struct {
	w *bufio.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) pad(align int64) error {
	_, err := c.Write(make([]byte, (align-c.n%align)%align))
	return err
}

func (c *counter) header(name string, ino int, mode uint32, uid, gid, nlink int, mtime, size int64, major, minor uint32) error {
	// The five fields before the name's length are the device the file lies on (0,0), its own
	// device number, and the name's length with its NUL; the last is an unused checksum.
	_, err := fmt.Fprintf(c, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		ino, mode, uid, gid, nlink, uint32(mtime), size, 0, 0, major, minor, len(name)+1, 0, name)
	if err != nil {
		return err
	}
	return c.pad(4)
}

func (c *counter) entry(name string, e *tree.Entry, ino int, mtime int64) error {
	mode, nlink, size := e.Mode&0o7777, 1, int64(0)
	var content io.Reader
	switch e.Type {
	case tree.File:
		mode |= sIFREG
		size = e.Content.Size()
		if size > 1<<32-1 {
			return fmt.Errorf("%d bytes; the format holds files below 4 GiB", size)
		}
		r, err := e.Content.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		content = r
	case tree.Dir:
		mode, nlink = mode|sIFDIR, 2
	case tree.Symlink:
		mode, size = sIFLNK|0o777, int64(len(e.Link))
	case tree.CharDev:
		mode |= sIFCHR
	case tree.BlockDev:
		mode |= sIFBLK
	case tree.Fifo:
		mode |= sIFIFO
	default:
		return fmt.Errorf("unknown entry type %d", e.Type)
	}
	if err := c.header(name, ino, mode, e.UID, e.GID, nlink, mtime, size, e.Major, e.Minor); err != nil {
		return err
	}
	if e.Type == tree.Symlink {
		if _, err := io.WriteString(c, e.Link); err != nil {
			return err
		}
	}
	if content != nil {
		n, err := io.Copy(c, content)
		if err != nil {
			return err
		}
		if n != size {
			return fmt.Errorf("file has %d bytes, expected %d", n, size)
		}
	}
	return c.pad(4)
}
