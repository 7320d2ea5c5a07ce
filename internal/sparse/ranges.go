package sparse

import (
	"encoding/binary"
	"fmt"
)

// What Windows is asked of a file with holes: FSCTL_QUERY_ALLOCATED_RANGES takes a
// FILE_ALLOCATED_RANGE_BUFFER, an offset and a length, and gives as many as have room.
const rangeBytes = 16

// rangeQuery asks for the allocated parts of a file from an offset on.
func rangeQuery(at, n int64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(at)), uint64(n))
}

// parseRanges reads what is answered about a file of size bytes; no part begins before
// byte from.
func parseRanges(b []byte, from, size int64) (out []extent, err error) {
	if len(b)%rangeBytes != 0 {
		return nil, fmt.Errorf("allocated ranges: %d bytes", len(b))
	}
	for ; len(b) > 0; b = b[rangeBytes:] {
		at, n := int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))
		if at < from || n <= 0 || n > 1<<62 || at > size {
			return nil, fmt.Errorf("allocated ranges: %d bytes at byte %d, after byte %d of %d", n, at, from, size)
		}
		from = at + n
		// A range is of whole clusters, also behind the file's end.
		if end := min(from, size); end > at {
			out = append(out, extent{at, end - at})
		}
	}
	return out, nil
}

// askRanges lists the data of a file of size bytes. ask sends a query; more says that
// there was no room for the rest of the answer.
func askRanges(size int64, ask func(query []byte) (answer []byte, more bool, err error)) (out []extent, err error) {
	for at := int64(0); at < size; {
		b, more, err := ask(rangeQuery(at, size-at))
		if err != nil {
			return nil, err
		}
		part, err := parseRanges(b, at, size)
		if err != nil {
			return nil, err
		}
		for _, e := range part {
			if n := len(out); n > 0 && out[n-1].at+out[n-1].len == e.at {
				out[n-1].len += e.len
			} else {
				out = append(out, e)
			}
			at = e.at + e.len
		}
		if !more {
			break
		}
		if len(part) == 0 {
			return nil, fmt.Errorf("allocated ranges: none from byte %d on, and more to come", at)
		}
	}
	return out, nil
}
