package nodeimage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/diskspace"
	"github.com/kiln-os/kiln/internal/sparse"
)

// Written says what a stamp wrote, in bytes.
type Written struct {
	Base  int64 `json:"base"`  // copied from the base image; 0 if its blocks are shared
	Stamp int64 `json:"stamp"` // into the boot partition
}

// unsynced is a new file, which is synced as a whole when it is complete.
type unsynced struct{ *os.File }

func (unsynced) Sync() error { return nil }

// Create writes the image of a node to path, whole or not at all, with mode 0600:
// the stamp holds keys. progress, if not nil, is told the bytes that are done.
func (b *Base) Create(ctx context.Context, path string, id Identity, progress func(n int64)) (w Written, err error) {
	if id.Profile != b.Profile {
		return w, fmt.Errorf("node %s has profile %s, and the base image %s", id.Node, id.Profile, b.Profile)
	}
	src, err := os.Open(b.Image)
	if err != nil {
		return w, err
	}
	defer src.Close()
	err = atomicfile.Write(path, 0o600, func(f *os.File) error {
		if w.Base, err = sparse.Copy(ctx, f, src, progress); err != nil {
			return err
		}
		t, err := disk.Read(f)
		if err != nil {
			return err
		}
		part, ok := t.Find(IDsOf(b.Profile).ESP)
		if !ok {
			return errors.New("the base image has no boot partition")
		}
		w.Stamp, err = replace(unsynced{f}, part, id)
		return errors.Join(err, ctx.Err())
	})
	if full := (*diskspace.FullError)(nil); errors.As(err, &full) {
		full.Path = path // not the temporary file's
	}
	return w, err
}

func replace(d esp.Device, part disk.Placed, id Identity) (int64, error) {
	v, err := esp.Open(d, part.Offset, part.Size)
	if err != nil {
		return 0, err
	}
	return v.Replace(folder, id.files())
}

// ErrBooted says that an image belongs to a node already: it was booted, and its
// state partition was made then.
var ErrBooted = errors.New("this image has been booted: its state partition belongs to the node it was, and a new stamp would not be read")

// Stamp writes the stamp into an existing image: a file, or a disk that an image
// was written to. An image that has been booted is refused with ErrBooted; with
// reset its state partition is removed, after which the next boot is a first boot.
//
// A crash at any instant leaves the old stamp or the new one, and the partition
// table whole; running it again finishes what was begun.
func Stamp(ctx context.Context, path string, id Identity, reset bool) (w Written, err error) {
	f, err := OpenExclusive(path)
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if w, err = StampOpen(ctx, f, id, reset); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return w, err
}

// StampOpen is Stamp for an image or a disk that nobody else has open.
func StampOpen(ctx context.Context, f disk.File, id Identity, reset bool) (w Written, err error) {
	found, err := CheckStamp(f, id.Node, id.Profile, reset)
	if err != nil {
		return w, err
	}
	// What follows takes milliseconds, and is not torn apart by an interrupt.
	if err := ctx.Err(); err != nil {
		return w, err
	}
	// The stamp first: a machine that is switched on in between is what it was.
	if w.Stamp, err = replace(f, found.ESP, id); err != nil {
		return w, err
	}
	t := found.Table
	if found.Booted || t.Damaged {
		if err := t.Remove(f, IDsOf(id.Profile).State); err != nil {
			return w, err
		}
	}
	if reset {
		// Behind the last partition are only remains of the state, with its keys. The
		// last MiB holds the backup of the partition table.
		return w, erase(f, t.End(), t.Size-mib)
	}
	return w, nil
}

// erase makes a part of an image file read as zeros. Of a disk nothing is erased:
// the node discards the blocks when it makes a new state partition there.
func erase(f disk.File, from, to int64) error {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || from >= to {
		return err
	}
	// An *os.File, or what has one in it.
	if file, ok := f.(interface{ Fd() uintptr }); !ok || !sparse.Punch(file.Fd(), from, to) {
		zeros := make([]byte, mib)
		for at := from; at < to; {
			n, err := f.WriteAt(zeros[:min(int64(len(zeros)), to-at)], at)
			if err != nil {
				return err
			}
			at += int64(n)
		}
	}
	return f.Sync()
}

// OpenExclusive opens an image or a disk to be changed and keeps everybody else away
// from it.
func OpenExclusive(path string) (*os.File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	how := os.O_RDWR
	switch m := st.Mode(); {
	case m.IsRegular():
	case m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0:
		how |= os.O_EXCL // fails if the disk or a partition of it is mounted (open(2))
	default:
		return nil, fmt.Errorf("%s is neither a file nor a disk", path)
	}
	f, err := os.OpenFile(path, how, 0)
	if errors.Is(err, errBusy) {
		return nil, fmt.Errorf("%s: a partition of it is mounted or in use: unmount it first", path)
	}
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		if errors.Is(err, errInUse) {
			err = fmt.Errorf("%s is in use by another program, such as a virtual machine that runs it: stop that first", path)
		} else {
			err = fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// CheckStamp says what image f is, if a node of the profile may be stamped into it.
func CheckStamp(f disk.File, node, profile string, reset bool) (*Found, error) {
	found, err := Identify(f)
	switch {
	case errors.As(err, new(*format.NotRawError)):
		return nil, fmt.Errorf("only raw images can be stamped: %w; or stamp a new one with imagegen stamp --format", err)
	case err != nil:
		return nil, err
	case found.Profile != profile:
		return nil, fmt.Errorf("this is an image of profile %s, but node %s has profile %s", found.Profile, node, profile)
	case found.Booted && !reset:
		return nil, ErrBooted
	}
	return found, CheckArch(found.Table, profile)
}

// ReadBack checks that the image f has the node's stamp and no other.
func (id Identity) ReadBack(f disk.File) error {
	found, err := Identify(f)
	if err != nil {
		return err
	}
	v, err := esp.Open(f, found.ESP.Offset, found.ESP.Size)
	if err != nil {
		return err
	}
	got, ok, err := ReadStamp(v)
	if err == nil && (!ok || !got.Equal(id.Config)) {
		err = errors.New("the stamp is not the one that was written")
	}
	return err
}
