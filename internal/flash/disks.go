package flash

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Disk is a disk of this machine that an image could be written to.
type Disk struct {
	Path      string `json:"path"`
	Size      int64  `json:"bytes"`
	Model     string `json:"model,omitempty"`
	Removable bool   `json:"removable"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
	// System says that this machine runs from it.
	System bool `json:"system,omitempty"`
	// Mounts are where parts of it are mounted; Holders are what else has parts of it
	// open, such as LVM or a RAID.
	Mounts  []string `json:"mounts,omitempty"`
	Holders []string `json:"holders,omitempty"`
	// Volumes are where a card or stick is mounted on Windows, which does that by itself
	// with each: they are dismounted for the time of writing.
	Volumes []string `json:"volumes,omitempty"`

	sector int64 // bytes; 0 if that is not known
}

// imageSector is the size of the sectors that the partition table of an image counts.
const imageSector = 512

// Free says whether the disk can be written to.
func (d Disk) Free() bool { return d.check() == nil }

// State says in words whether the disk can be written to.
func (d Disk) State() string {
	switch {
	case d.System:
		return "this machine's system"
	case len(d.Mounts) > 0:
		return "mounted at " + strings.Join(d.Mounts, ", ")
	case len(d.Holders) > 0:
		return "in use by " + strings.Join(d.Holders, ", ")
	case d.ReadOnly:
		return "read-only"
	case d.sector != 0 && d.sector != imageSector:
		return fmt.Sprintf("sectors of %d bytes", d.sector)
	case len(d.Volumes) > 0:
		return "free, dismounts " + strings.Join(d.Volumes, ", ")
	}
	return "free"
}

// check refuses a disk that must not be written to.
func (d Disk) check() error {
	switch {
	case d.System:
		return fmt.Errorf("%s is the disk that this machine runs from: nothing is written to it", d.Path)
	case len(d.Mounts) > 0:
		return fmt.Errorf("%s is mounted at %s: unmount it first, if what is on it may be lost", d.Path, strings.Join(d.Mounts, ", "))
	case len(d.Holders) > 0:
		return fmt.Errorf("%s is in use by %s: release it first, if what is on it may be lost", d.Path, strings.Join(d.Holders, ", "))
	case d.ReadOnly:
		return fmt.Errorf("%s is read-only: a card may have a switch for that", d.Path)
	case d.sector != 0 && d.sector != imageSector:
		return fmt.Errorf("%s has sectors of %d bytes, and an image is made for %d: no machine would start from it", d.Path, d.sector, imageSector)
	}
	return nil
}

// Describe is the disk in a sentence.
func (d Disk) Describe() string {
	about := decimal(d.Size)
	if d.Model != "" {
		about = d.Model + ", " + about
	}
	if len(d.Volumes) > 0 {
		about += ", mounted at " + strings.Join(d.Volumes, ", ")
	}
	return fmt.Sprintf("%s (%s)", d.Path, about)
}

// noDisk is the error of a path that names none.
func noDisk(path string) error {
	return fmt.Errorf("%s is no disk that an image can be written to; imagegen flash IMAGE lists those that are", path)
}

// Print writes the disks as a table.
func Print(w io.Writer, disks []Disk) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DISK\tSIZE\tMODEL\tSTATE")
	for _, d := range disks {
		model := d.Model
		if d.Removable {
			model = strings.TrimSpace(model + " (removable)")
		}
		if model == "" {
			model = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", d.Path, decimal(d.Size), model, d.State())
	}
	return t.Flush()
}

// decimal is a size as disks are sold.
func decimal(n int64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
