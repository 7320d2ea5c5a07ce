package installer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/format"
	"github.com/kiln-os/kiln/internal/flash"
)

// candidate is a disk that the node could be installed on.
type candidate struct {
	flash.Disk
	holds string // what is on it in words; "" if nothing that anybody would miss
	never string // why it will not do in any case
}

// Machine is where a machine tells of its disks.
type Machine struct {
	Root string // of /sys, /run and /dev
	List func() ([]flash.Disk, error)
	// Patience is how long a disk has to appear: some controllers take their time.
	Patience time.Duration
}

func (m Machine) candidates() ([]candidate, error) {
	disks, err := m.List()
	if err != nil {
		return nil, err
	}
	var out []candidate
	for _, d := range disks {
		name := strings.ReplaceAll(strings.TrimPrefix(d.Path, "/dev/"), "/", "!") // as in sysfs
		if strings.HasPrefix(name, "loop") {                                      // /usr, and its hash tree
			continue
		}
		c := candidate{Disk: d}
		if c.never, err = m.unfit(name, d.Path); err == nil {
			c.holds, err = m.holds(name)
		}
		if err != nil {
			// It may be empty, or not: nothing is written to it unless it is named.
			c.holds = "cannot be looked at: " + err.Error()
		}
		out = append(out, c)
	}
	return out, nil
}

// unfit says why no node can be installed on a disk, "" if one can.
func (m Machine) unfit(name, path string) (string, error) {
	// The partition table of an image counts in sectors of 512 bytes.
	b, err := os.ReadFile(filepath.Join(m.Root, "sys/block", name, "queue/logical_block_size"))
	if err != nil {
		return "", err
	}
	if size := strings.TrimSpace(string(b)); size != "512" {
		return "sectors of " + size + " bytes, and an image has 512", nil
	}
	f, err := os.Open(filepath.Join(m.Root, path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	t, err := disk.Read(f)
	if errors.Is(err, disk.ErrNoTable) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(t.Partitions, func(p disk.Placed) bool { return p.Name == format.ISOPartition }) {
		return "what this machine has booted from", nil
	}
	return "", nil
}

// holds says what is on a disk, as the kernel and udev have found.
func (m Machine) holds(name string) (string, error) {
	dir := filepath.Join(m.Root, "sys/block", name)
	parts, err := filepath.Glob(filepath.Join(dir, name+"*", "partition"))
	if err != nil {
		return "", err
	}
	switch len(parts) {
	case 0:
	case 1:
		return "1 partition", nil
	default:
		return fmt.Sprintf("%d partitions", len(parts)), nil
	}
	number, err := os.ReadFile(filepath.Join(dir, "dev"))
	if err != nil {
		return "", err
	}
	// udev(7): the properties of a block device, by its number.
	properties, err := os.ReadFile(filepath.Join(m.Root, "run/udev/data", "b"+strings.TrimSpace(string(number))))
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("udev has not seen it yet")
	}
	if err != nil {
		return "", err
	}
	for _, l := range strings.Split(string(properties), "\n") {
		key, value, _ := strings.Cut(l, "=")
		switch {
		case key == "E:ID_FS_TYPE" && value != "":
			return value, nil
		case key == "E:ID_FS_AMBIVALENT":
			return "several file systems at once", nil
		case key == "E:ID_PART_TABLE_TYPE" && value != "gpt" && value != "dos":
			return "a partition table of type " + value, nil // whose partitions Linux may not see
		}
	}
	return "", nil
}

// state says in words whether the node can be installed on the disk, which needs some
// bytes.
func (c candidate) state(need int64) string {
	switch {
	case c.never != "":
		return c.never
	case c.State() != "free":
		return c.State()
	case c.Size < need:
		return fmt.Sprintf("too small: %d MiB of %d", c.Size>>20, need>>20)
	case strings.HasPrefix(c.holds, "cannot"):
		return c.holds
	case c.holds != "":
		return "not empty: " + c.holds
	}
	return usable
}

const usable = "empty and large enough"

// choose returns the only disk that is empty and has the bytes that are needed.
func choose(all []candidate, need int64) (candidate, error) {
	var found []candidate
	for _, c := range all {
		if c.state(need) == usable {
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(all) == 0:
		return candidate{}, &refusedError{"this machine shows no disks: is one attached, and its controller in a mode that Linux knows, such as AHCI?", true}
	case len(found) == 0:
		return candidate{}, refuse(all, need, true, fmt.Sprintf("no disk of this machine is empty and has the %d MiB that this node needs", need>>20))
	}
	return candidate{}, refuse(all, need, false, fmt.Sprintf("%d disks of this machine are empty and have the %d MiB that this node needs", len(found), need>>20))
}

// named returns the disk that a path leads to. What is on it may be lost, since
// somebody has named it.
func (m Machine) named(all []candidate, name string, need int64) (candidate, error) {
	real, err := filepath.EvalSymlinks(filepath.Join(m.Root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return candidate{}, refuse(all, need, true, "there is no "+name)
	}
	if err != nil {
		return candidate{}, err
	}
	for _, c := range all {
		if filepath.Join(m.Root, c.Path) != real {
			continue
		}
		if c.never != "" {
			return c, refuse(all, need, false, name+" will not do: "+c.never)
		}
		return c, nil
	}
	return candidate{}, refuse(all, need, false, name+" is no disk that a node can be installed on; a partition is none")
}

// refusedError says why there is no disk to install on.
type refusedError struct {
	text string
	wait bool // a disk that appears later may do
}

func (e *refusedError) Error() string { return e.text }

// refuse is a refusedError with the list of disks.
func refuse(all []candidate, need int64, wait bool, why string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. Name the disk to install on, all of which will be lost, on the kernel's command line: %s=/dev/… (e in the boot menu changes that). The disks of this machine:\n", why, word)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DISK\tMIB\tMODEL\tSTATE")
	for _, c := range all {
		model := c.Model
		if model == "" {
			model = "-"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", c.Path, c.Size>>20, model, c.state(need))
	}
	_ = t.Flush() // to memory
	return &refusedError{strings.TrimRight(b.String(), "\n"), wait}
}

// find returns the disk that a name stands for or, if there is none, the only one that
// will do. It waits for it to appear.
func (m Machine) find(ctx context.Context, name string, need int64, say func(string)) (candidate, error) {
	pick := func() (candidate, error) {
		all, err := m.candidates()
		if err != nil {
			return candidate{}, err
		}
		if name == "" {
			return choose(all, need)
		}
		return m.named(all, name, need)
	}
	deadline := time.Now().Add(m.Patience)
	for told := false; ; told = true {
		c, err := pick()
		refused := (*refusedError)(nil)
		if !errors.As(err, &refused) || !refused.wait || !time.Now().Before(deadline) {
			return c, err
		}
		if !told {
			say(fmt.Sprintf("there is no disk yet to install on; waiting for %v for one to appear", m.Patience))
		}
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-time.After(min(time.Second, m.Patience)):
		}
	}
}
