package qemu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// inspectImage tells qcow2 from raw by the file's first bytes, and returns the
// size the guest would see. A backing format is always named to QEMU: guessing
// it would let a guest that writes a qcow2 header to a raw disk read host files.
func inspectImage(path string) (format string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	if !st.Mode().IsRegular() {
		return "", 0, fmt.Errorf("%s is not a file; a disk image is needed", path)
	}
	// qcow2 header: magic, version u32, backing file offset u64 and size u32,
	// cluster bits u32, virtual size u64; all big-endian
	// (https://www.qemu.org/docs/master/interop/qcow2.html).
	var h [32]byte
	if _, err := io.ReadFull(f, h[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return "", 0, fmt.Errorf("%s has %d bytes; that is no disk image", path, st.Size())
		}
		return "", 0, err
	}
	if string(h[:4]) == "QFI\xfb" {
		return "qcow2", int64(binary.BigEndian.Uint64(h[24:])), nil
	}
	return "raw", st.Size(), nil
}
