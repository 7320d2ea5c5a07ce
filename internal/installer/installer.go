// Package installer installs a node that was booted from a CD, a stick or the network
// on a disk of its machine. The disk becomes what imagegen writes for the node as a raw
// image; the parts of it are in the initramfs that was booted, see images/live.
package installer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/kiln-os/kiln/images/live"
	"github.com/kiln-os/kiln/internal/flash"
)

// Source is where the parts of the disk are.
type Source struct {
	Dir string // the initramfs's folder of them
	// Usr is the device of /usr, which checks what is read by its hash tree.
	Usr string
}

// Install installs a node as the options say, and tells a person how far it is by say.
func Install(ctx context.Context, o Options, src Source, m Machine, say func(string)) error {
	d, files, err := src.open()
	if err != nil {
		return err
	}
	defer files.close()
	image, err := flash.FromReader("the image in this initramfs", d.Reader(files.readers()), d.Size, d.Used)
	if err != nil {
		return err
	}
	need := max(image.Size, int64(image.Profile.Disk.Minimum)<<20)
	c, err := m.find(ctx, o.Disk, need, say)
	if err != nil {
		return err
	}
	checked, err := image.Check(filepath.Join(m.Root, c.Path))
	if err != nil {
		return err
	}
	t, err := flash.OpenTarget(checked)
	if err != nil {
		return err
	}
	defer t.Close()
	say(fmt.Sprintf("installing on %s; what was on it is lost", c.Describe()))
	r, err := image.Write(ctx, t, &lines{say: say})
	if err != nil {
		return err
	}
	say(fmt.Sprintf("node %s is installed on %s: %.0f MB written, read back and compared.", r.Node, c.Describe(), float64(r.Written)/1e6))
	return nil
}

// open opens the parts and checks those that nothing else checks.
func (s Source) open() (*live.Disk, opened, error) {
	text, err := os.ReadFile(filepath.Join(s.Dir, live.DiskFile))
	if err != nil {
		return nil, nil, err
	}
	d, err := live.ParseDisk(text)
	if err != nil {
		return nil, nil, err
	}
	files := opened{}
	for name, path := range map[string]string{
		live.UsrFile:    s.Usr,
		live.VerityFile: filepath.Join(s.Dir, live.VerityFile),
		live.RestFile:   filepath.Join(s.Dir, live.RestFile),
	} {
		if files[name], err = os.Open(path); err != nil {
			delete(files, name)
			return nil, nil, errors.Join(err, files.close())
		}
	}
	if err := d.CheckRest(files[live.RestFile]); err != nil {
		return nil, nil, errors.Join(err, files.close())
	}
	return d, files, nil
}

type opened map[string]*os.File

func (o opened) readers() map[string]io.ReaderAt {
	out := map[string]io.ReaderAt{}
	for name, f := range o {
		out[name] = f
	}
	return out
}

func (o opened) close() (err error) {
	for _, f := range o {
		err = errors.Join(err, f.Close())
	}
	return err
}

// lines is a flash.Progress in lines for a console.
type lines struct {
	say  func(string)
	last time.Time
}

// often is how long a console may be still.
const often = 5 * time.Second

func (l *lines) Step(name string) {
	l.say(name)
	l.last = time.Now()
}

func (l *lines) Bytes(done, total int64) {
	if now := time.Now(); total > 0 && now.Sub(l.last) >= often {
		l.say(fmt.Sprintf("%d of %d MB", done/1e6, total/1e6))
		l.last = now
	}
}
