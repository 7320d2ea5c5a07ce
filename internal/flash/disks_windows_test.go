package flash

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

// TestWindowsMachine: whatever machine this is, the disk that Windows is on is found by
// its drive letter, and never free.
func TestWindowsMachine(t *testing.T) {
	disks, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		t.Logf("%+v: %s", d, d.State())
		if _, ok := winNumber(d.Path); !ok || d.Size <= 0 || !IsDisk(d.Path) {
			t.Errorf("%+v", d)
		}
	}
	folder, err := windows.GetSystemWindowsDirectory()
	if err != nil {
		t.Fatal(err)
	}
	letter := filepath.VolumeName(folder)
	_, err = CheckCard(letter)
	if err == nil || !strings.Contains(err.Error(), letter+" is a partition") {
		t.Fatalf("%s: %v", letter, err)
	}
	_, path, _ := strings.Cut(err.Error(), "name the whole disk, ")
	d, err := find(path)
	if err != nil || !d.System || len(d.Mounts) == 0 {
		t.Errorf("%+v, %v", d, err)
	}
	const want = "is the disk that this machine runs from"
	if _, err := CheckCard(path); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("checked: %v", err)
	}
	if on, err := OpenTarget(Disk{Path: path, Size: d.Size, sector: d.sector}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("opened: %+v, %v", on, err)
	}
	if _, err := CheckCard(winPath(4000)); err == nil || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("no such disk: %v", err)
	}
}

// TestWinDrive flashes and stamps a file that is opened as disks are: without Windows'
// cache it, too, takes nothing but whole sectors.
func TestWinDrive(t *testing.T) {
	raw := image(t)
	path := dirty(t, 8<<30)
	open := func() (windows.Handle, error) {
		return openHandle(path, windows.GENERIC_READ|windows.GENERIC_WRITE, windows.FILE_SHARE_READ, windows.FILE_FLAG_NO_BUFFERING)
	}
	h, err := open()
	if err != nil {
		t.Fatal(err)
	}
	w := &winDrive{path: path, handle: h}
	if h, err := open(); !errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
		t.Errorf("opened twice: %v, %v", h, err)
	}
	dev, err := newSectorDevice(w, path, 8<<30, imageSector)
	if err != nil {
		t.Fatal(err)
	}
	on := &Target{Disk: Disk{Path: path, Size: 8 << 30}, dev: dev}
	if r, err := openImage(t, raw).Write(t.Context(), on, &told{t: t}); err != nil || r.Node != "worker-7" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := on.Stamp(t.Context(), identity("worker-8", ""), false); err != nil {
		t.Error(err)
	}
	if n, err := dev.ReadAt(make([]byte, 4096), 8<<30-1024); n != 1024 || err == nil {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if err := on.Close(); err != nil {
		t.Error(err)
	}
	if got := nodeOn(t, path); got != "worker-8" {
		t.Errorf("node %q", got)
	}
	if _, err := dev.ReadAt(make([]byte, 512), 0); err == nil {
		t.Error("read after it was closed")
	}
	for _, e := range []error{windows.ERROR_NO_MEDIA_IN_DRIVE, windows.ERROR_NOT_READY, windows.ERROR_DEVICE_NOT_CONNECTED} {
		err := on.explain(t.Context(), w.wrap("write", e), 5<<20)
		if !strings.Contains(err.Error(), path+" takes or gives no more data, after 5 MiB") {
			t.Errorf("%v: %v", e, err)
		}
	}
}
