//go:build !linux && !windows

package sparse

import (
	"os"
	"slices"
)

// extents lists the data of a file: its blocks that are not zeros, as holes cannot
// be asked for the same way everywhere.
func extents(f *os.File, size int64) ([]extent, error) {
	var out []extent
	buf, zeros := make([]byte, block), make([]byte, block)
	for at := int64(0); at < size; at += block {
		b := buf[:min(block, size-at)]
		if _, err := f.ReadAt(b, at); err != nil {
			return nil, err
		}
		if slices.Equal(b, zeros[:len(b)]) {
			continue
		}
		if n := len(out); n > 0 && out[n-1].at+out[n-1].len == at {
			out[n-1].len += int64(len(b))
		} else {
			out = append(out, extent{at, int64(len(b))})
		}
	}
	return out, nil
}

func allow(*os.File) {}

// Punch makes a hole of a part of an open file, if its file system can.
func Punch(uintptr, int64, int64) bool { return false }

func reflink(_, _ *os.File) bool { return false }

func startWriting(*os.File, int64, int64) {}
