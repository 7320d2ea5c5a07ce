package userdata

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// driveLabel names the file system of OpenStack's config drive, in any case.
const driveLabel = "config-2"

// probe returns the kind of a config drive's file system; "" if a device is none, which
// a drive without a disc or a disk that cannot be read is not either.
func probe(dev string) string {
	f, err := os.Open(dev)
	if err != nil {
		return ""
	}
	defer f.Close()
	if kind, label := fileSystem(f); strings.EqualFold(label, driveLabel) {
		return kind
	}
	return ""
}

// fileSystem returns kind and label of a file system of the two kinds that config
// drives have.
func fileSystem(r io.ReaderAt) (kind, label string) {
	// ECMA-119, 8.4: the primary volume descriptor is in the 17th sector.
	iso := make([]byte, 72)
	if _, err := r.ReadAt(iso, 16*2048); err == nil && string(iso[:6]) == "\x01CD001" {
		return "iso9660", strings.TrimRight(string(iso[40:72]), " \x00")
	}
	fat := make([]byte, 512)
	if _, err := r.ReadAt(fat, 0); err != nil || fat[510] != 0x55 || fat[511] != 0xaa {
		return "", ""
	}
	// The extended boot signature, 0x29, tells where FAT32 and the smaller ones have it.
	for _, at := range []int{66, 38} {
		if fat[at] == 0x29 && strings.HasPrefix(string(fat[at+16:at+24]), "FAT") {
			return "vfat", strings.TrimRight(string(fat[at+5:at+16]), " \x00")
		}
	}
	return "", ""
}

// readFile returns the content of a file, nil if there is none.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("%s has more than %d MiB", filepath.Base(path), maxSize>>20)
	}
	return data, err
}
