package inspect

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/kiln-os/kiln/images/deb"
	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/images/grub"
	"github.com/kiln-os/kiln/images/squashfs"
	"github.com/kiln-os/kiln/images/uki"
	"github.com/kiln-os/kiln/images/verity"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/nodeimage"
)

// System is a kernel and its initramfs with the /usr that they start.
type System struct {
	// Boot is the file in the boot partition, or the folder where GRUB starts it.
	Boot   string `json:"boot"`
	Kiln   string `json:"kiln,omitempty"`   // version
	OS     string `json:"os,omitempty"`     // os-release's PRETTY_NAME
	Kernel string `json:"kernel,omitempty"` // release
	// Kubernetes is the version of the payload.
	Kubernetes string `json:"kubernetes,omitempty"`
	Usr        Usr    `json:"usr"`
	// Payload and Debian are what /usr says of itself.
	Payload *build.Payload `json:"payload,omitempty"`
	Debian  *Debian        `json:"debian,omitempty"`
}

// Usr is a read-only /usr.
type Usr struct {
	Partition string `json:"partition,omitempty"` // its name
	Size      int64  `json:"size,omitempty"`      // of the file system, in bytes
	RootHash  string `json:"rootHash,omitempty"`  // on the kernel's command line
	Check     Check  `json:"check"`
}

// Check says whether /usr is what was built.
type Check string

// The results of a check.
const (
	CheckIntact  Check = "intact"  // every byte is what the root hash stands for
	CheckDamaged Check = "damaged" // the node will not start, or not read some file
	CheckSkipped Check = "skipped" // nobody asked
)

// Debian is where the packages are from.
type Debian struct {
	Suite    string    `json:"suite"`
	Date     time.Time `json:"date"`           // of the suite's signed index
	AsOf     string    `json:"asOf,omitempty"` // the day as of which that was judged, if one was named
	Packages []Package `json:"packages"`
}

// Package is a Debian package.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
}

// bootFolder is where systemd-boot looks for unified kernel images.
const bootFolder = "EFI/Linux"

// systems inspects all systems that can be started. The error is an interrupt.
func (r *Report) systems(ctx context.Context, f *os.File, t *disk.Table, v *esp.Volume, o Options) error {
	a, err := arch.Get(r.Arch)
	if err != nil {
		return err
	}
	if a.Boot == arch.BootPReP {
		return r.grubSystems(ctx, f, t, v, o)
	}
	files, found, err := v.Open(bootFolder)
	if err == nil && (!found || len(files) == 0) {
		err = errors.New("there is no unified kernel image in " + bootFolder + " of the boot partition: a machine does not start from this image")
	}
	if err != nil {
		r.problem(err)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		s := System{Boot: bootFolder + "/" + name, Usr: Usr{Check: CheckSkipped}}
		text, err := uki.ReadText(files[name], files[name].Size())
		if err == nil {
			err = s.read(ctx, f, t, text, o)
		}
		if err := r.add(ctx, s, err); err != nil {
			return err
		}
	}
	return nil
}

// grubSystems inspects the systems that GRUB starts, and GRUB.
func (r *Report) grubSystems(ctx context.Context, f *os.File, t *disk.Table, v *esp.Volume, o Options) error {
	if err := nodeimage.CheckPReP(f, t); err != nil {
		r.problem(err)
	}
	for _, slot := range grub.Slots {
		s := System{Boot: grub.Systems + "/" + slot, Usr: Usr{Check: CheckSkipped}}
		text, found, err := grub.ReadText(v, slot)
		if err == nil && !found {
			continue
		}
		if err == nil {
			err = s.read(ctx, f, t, text, o)
		}
		if err := r.add(ctx, s, err); err != nil {
			return err
		}
	}
	if len(r.Systems) == 0 {
		r.problem(errors.New("there is no kernel in " + grub.Systems + " of the boot partition: a machine does not start from this image"))
	}
	return nil
}

// add takes a system and what is wrong with it into the report. The error is an interrupt.
func (r *Report) add(ctx context.Context, s System, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.problem(fmt.Errorf("%s: %w", s.Boot, err))
	}
	r.Systems = append(r.Systems, s)
	return nil
}

func (s *System) read(ctx context.Context, f *os.File, t *disk.Table, text uki.Sections, o Options) error {
	release := osRelease(text.OSRel)
	s.Kiln, s.OS, s.Kubernetes, s.Kernel = release["IMAGE_VERSION"], release["PRETTY_NAME"], release["KILN_KUBERNETES"], string(text.Uname)
	hash, err := rootHash(string(text.Cmdline))
	if err != nil {
		return err
	}
	s.Usr.RootHash = hex.EncodeToString(hash[:])
	data, hashes, err := s.Usr.find(f, t, hash)
	if err != nil {
		return err
	}
	if o.Verify {
		// What does not fit the root hash would not be read by a node either.
		counted := &counter{ReaderAt: data, total: data.Size(), report: o.Bytes}
		if err := verity.Verify(ctx, counted, data.Size(), hashes, hash); err != nil {
			s.Usr.Check = CheckDamaged
			return fmt.Errorf("/usr is not what was built: %w. Write the image again", err)
		}
		s.Usr.Check = CheckIntact
	}
	return s.describe(data)
}

// rootHash is what the kernel's command line says /usr must be.
func rootHash(cmdline string) (hash [32]byte, err error) {
	for _, word := range strings.Fields(cmdline) {
		v, ok := strings.CutPrefix(word, "usrhash=")
		if !ok {
			continue
		}
		b, err := hex.DecodeString(v)
		if err != nil || len(b) != len(hash) {
			return hash, errors.New("usrhash on the kernel's command line is not a SHA-256")
		}
		return [32]byte(b), nil
	}
	return hash, errors.New("the kernel's command line has no usrhash: nothing protects /usr")
}

// find returns the file system and the hash tree that belong to a root hash: their
// partitions have its halves as UUIDs, see systemd-veritysetup-generator(8).
func (u *Usr) find(f *os.File, t *disk.Table, hash [32]byte) (data, hashes *io.SectionReader, err error) {
	usr, ok1 := t.Find(uuid.UUID(hash[:16]))
	tree, ok2 := t.Find(uuid.UUID(hash[16:]))
	if !ok1 || !ok2 {
		return nil, nil, errors.New("no partition of /usr belongs to the root hash: the boot partition is of another image")
	}
	u.Partition = usr.Name
	hashes = io.NewSectionReader(f, tree.Offset, tree.Size)
	if u.Size, err = verity.DataSize(hashes); err != nil {
		u.Check = CheckDamaged
		return nil, nil, err
	}
	if !within(usr, u.Size) || !within(tree, verity.HashAreaSize(u.Size)) {
		u.Check = CheckDamaged
		return nil, nil, fmt.Errorf("the hash tree is of %d bytes of data, which do not fit the partitions", u.Size)
	}
	return io.NewSectionReader(f, usr.Offset, u.Size), hashes, nil
}

// describe reads what /usr says of itself.
func (s *System) describe(data *io.SectionReader) error {
	usr, err := squashfs.Open(data, data.Size())
	if err != nil {
		return fmt.Errorf("/usr: %w", err)
	}
	defer usr.Close()
	record, err := usr.ReadFile(build.PayloadRecord)
	if err == nil {
		s.Payload = &build.Payload{}
		err = json.Unmarshal(record, s.Payload)
	}
	if err != nil {
		s.Payload = nil
		return fmt.Errorf("/usr/%s: %w", build.PayloadRecord, err)
	}
	s.Kubernetes = cmp.Or(s.Payload.Kubernetes, s.Kubernetes)
	packages, err := usr.ReadFile(build.PackagesRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an image of a version that did not record them
	}
	var lock *deb.Lock
	if err == nil {
		lock, err = deb.ParseLock(packages)
	}
	if err != nil {
		return fmt.Errorf("/usr/%s: %w", build.PackagesRecord, err)
	}
	s.Debian = &Debian{Suite: lock.Suite, Date: lock.Date, AsOf: lock.AsOf, Packages: []Package{}}
	for _, p := range lock.Packages {
		s.Debian.Packages = append(s.Debian.Packages, Package{p.Name, p.Version, p.Arch})
	}
	return nil
}

// osRelease reads os-release(5).
func osRelease(b []byte) map[string]string {
	out := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		out[key] = strings.Trim(value, "'")
	}
	return out
}

// counter counts the bytes that are read, by any number of goroutines.
type counter struct {
	io.ReaderAt
	done   atomic.Int64
	total  int64
	report func(done, total int64)
}

// ReadAt implements io.ReaderAt.
func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	if done := c.done.Add(int64(n)); c.report != nil {
		c.report(done, c.total)
	}
	return n, err
}
