package esp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// NoSpaceError says that files do not fit a volume.
type NoSpaceError struct{ Need, Free int64 } // bytes

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("boot partition: too little space: the new files take %d KiB beside the old ones, and %d KiB are free", e.Need>>10, e.Free>>10)
}

// maxRead is the size of the largest file that Read returns.
const maxRead = 16 << 20

// Read returns the files of a folder by name. Without such a folder found is false.
func (v *Volume) Read(folder string) (files map[string][]byte, found bool, err error) {
	opened, found, err := v.Open(folder)
	if err != nil || !found {
		return nil, false, err
	}
	files = map[string][]byte{}
	for name, f := range opened {
		if f.Size() > maxRead {
			return nil, false, wrap(fmt.Errorf("%s/%s has %d bytes; at most %d are read", folder, name, f.Size(), maxRead))
		}
		b := make([]byte, f.Size())
		if n, err := f.ReadAt(b, 0); n < len(b) {
			return nil, false, wrap(err)
		}
		files[name] = b
	}
	return files, true, nil
}

// Open returns the files of a folder by name, to be read where they lie. Without such
// a folder found is false.
func (v *Volume) Open(folder string) (files map[string]*io.SectionReader, found bool, err error) {
	_, dir, items, err := v.walk(folder)
	if err != nil || dir == nil {
		return nil, false, wrap(err)
	}
	files = map[string]*io.SectionReader{}
	for _, i := range items {
		if !i.dir {
			files[i.name] = io.NewSectionReader(chained{v, i.chain}, 0, i.size)
		}
	}
	return files, true, nil
}

// chained reads a chain of clusters.
type chained struct {
	v     *Volume
	chain []uint32
}

// ReadAt implements io.ReaderAt.
func (c chained) ReadAt(p []byte, off int64) (done int, err error) {
	for done < len(p) {
		n, in := off/c.v.perCluster, off%c.v.perCluster
		if off < 0 || n >= int64(len(c.chain)) {
			return done, io.EOF
		}
		part := p[done:min(int64(len(p)), int64(done)+c.v.perCluster-in)]
		if err := c.v.read(part, c.v.position(c.chain[n])+in); err != nil {
			return done, err
		}
		done += len(part)
		off += int64(len(part))
	}
	return done, nil
}

// Replace makes files, whose paths are plain names, what is in a folder below the
// root. The folder must be there and may hold nothing but files of these names.
// It returns how many bytes it wrote.
//
// At every instant the folder holds the old files or the new ones, whole: the
// entries of all of them lie in one sector, which is written when everything else
// is durable. Clusters are marked as taken before anything is written to them and
// zeroed before they are marked as free, so what an interrupted Replace leaves is
// found, and removed, by the next. The result does not depend on what was there:
// new files that first went to the end of the volume, because the old ones had to
// stay, are moved to where they would be in a new volume.
func (v *Volume) Replace(folder string, files []File) (written int64, err error) {
	err = v.replace(folder, files)
	return v.written, wrap(err)
}

func wrap(err error) error {
	if _, known := err.(*NoSpaceError); known || err == nil {
		return err
	}
	return fmt.Errorf("boot partition: %w", err)
}

func (v *Volume) replace(folder string, files []File) error {
	used, dir, items, err := v.walk(folder)
	if err != nil {
		return err
	}
	if dir == nil {
		return fmt.Errorf("there is no folder %s", folder)
	}
	root, err := arrange(files)
	if err != nil {
		return err
	}
	old, err := replaceable(folder, items, root)
	if err != nil {
		return err
	}
	if err := v.dropLost(used); err != nil {
		return err
	}
	need := int64(0)
	for _, k := range root.kids {
		need += v.clustersOf(k)
	}
	free := int64(len(v.free()))
	if len(old) > 0 && free+int64(len(old)) < 2*need || free < need {
		return &NoSpaceError{need * v.perCluster, free * v.perCluster}
	}
	if len(old) > 0 {
		aside := v.free()
		slices.Reverse(aside)
		aside = aside[:need]
		slices.Reverse(aside)
		if err := v.put(dir, root, aside); err != nil {
			return err
		}
		if err := v.drop(old); err != nil {
			return err
		}
		old = aside
	}
	if err := v.put(dir, root, v.free()[:need]); err != nil {
		return err
	}
	if err := v.drop(old); err != nil {
		return err
	}
	return v.writeInfo()
}

// replaceable returns the clusters of the files that are there, if Replace may
// remove them.
func replaceable(folder string, items []item, root *node) (old []uint32, err error) {
	for _, i := range items {
		ours := slices.ContainsFunc(root.kids, func(k *node) bool { return k.name == i.name })
		if i.dir || !ours {
			return nil, fmt.Errorf("%s/%s does not belong there: remove it", folder, i.name)
		}
		if i.index >= sector/32 {
			return nil, fmt.Errorf("the entry of %s/%s is not in the folder's first sector: remove the file", folder, i.name)
		}
		old = append(old, i.chain...)
	}
	return old, nil
}

func (v *Volume) clustersOf(k *node) int64 {
	return (k.content.Size() + v.perCluster - 1) / v.perCluster
}

func (v *Volume) free() (out []uint32) {
	for c := uint32(firstData); int64(c) < int64(len(v.fat)); c++ {
		if v.next(c) == 0 {
			out = append(out, c)
		}
	}
	return out
}

// badCluster marks one that the medium lost.
const badCluster = 0x0ffffff7

// dropLost frees clusters that are marked as taken, but that no file has: what an
// interrupted Replace left. Both FATs are the same afterwards.
func (v *Volume) dropLost(used []bool) error {
	var lost []uint32
	for c := uint32(firstData); int64(c) < int64(len(v.fat)); c++ {
		if n := v.next(c); n != 0 && n != badCluster && !used[c] {
			lost = append(lost, c)
		}
	}
	if !v.mirrored {
		for s := range v.fatBytes / sector {
			v.dirty[s] = true
		}
	}
	if err := v.drop(lost); err != nil {
		return err
	}
	return v.flushFAT()
}

// put writes the files to clusters, and when they are durable the folder's sector.
func (v *Volume) put(dir *item, root *node, clusters []uint32) error {
	rest := clusters
	for _, k := range root.kids {
		n := v.clustersOf(k)
		k.first, k.length = 0, n
		for i, c := range rest[:n] {
			next := uint32(endOfChain)
			if int64(i) < n-1 {
				next = rest[i+1]
			}
			v.set(c, next)
		}
		if n > 0 {
			k.first = rest[0]
		}
		rest = rest[n:]
	}
	if err := v.flushFAT(); err != nil {
		return err
	}
	rest = clusters
	for _, k := range root.kids {
		b, err := contentOf(k)
		if err != nil {
			return err
		}
		for _, c := range rest[:k.length] {
			cluster := make([]byte, v.perCluster) // zeros behind the file's end
			b = b[copy(cluster, b):]
			if err := v.write(cluster, v.position(c)); err != nil {
				return err
			}
		}
		rest = rest[k.length:]
	}
	if err := v.dev.Sync(); err != nil {
		return err
	}
	entries, err := v.entries(dir, root)
	if err != nil {
		return err
	}
	if err := v.write(entries, v.position(dir.chain[0])); err != nil {
		return err
	}
	return v.dev.Sync()
}

func contentOf(k *node) ([]byte, error) {
	r, err := k.content.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil && int64(len(b)) != k.content.Size() {
		err = fmt.Errorf("%s has %d bytes, expected %d", k.name, len(b), k.content.Size())
	}
	return b, err
}

// entries is the folder's first sector with the files' entries. Their time is that
// of the folder, so that the same stamp gives the same bytes at any time.
func (v *Volume) entries(dir *item, root *node) ([]byte, error) {
	b := make([]byte, sector)
	if err := v.read(b, v.position(dir.chain[0])); err != nil {
		return nil, err
	}
	dot, dots := pad11(".", ""), pad11("..", "")
	if !bytes.Equal(b[:11], dot[:]) || !bytes.Equal(b[32:43], dots[:]) {
		return nil, fmt.Errorf("%s does not start like a folder", dir.name)
	}
	t := dosToTime(binary.LittleEndian.Uint16(b[24:]), binary.LittleEndian.Uint16(b[22:]))
	b = b[:64:64]
	for _, k := range root.kids {
		if k.long {
			b = appendLong(b, k)
		}
		b = appendEntry(b, t, k.short, attrArchive, k.first, uint32(k.content.Size()))
	}
	if len(b) >= sector { // the entry behind the last one is zero
		return nil, fmt.Errorf("%d files do not fit the first sector of %s", len(root.kids), dir.name)
	}
	return append(b, make([]byte, sector-len(b))...), nil
}

// drop zeroes clusters and then frees them.
func (v *Volume) drop(clusters []uint32) error {
	if len(clusters) == 0 {
		return nil
	}
	zeros := make([]byte, v.perCluster)
	for _, c := range clusters {
		if err := v.write(zeros, v.position(c)); err != nil {
			return err
		}
	}
	if err := v.dev.Sync(); err != nil {
		return err
	}
	for _, c := range clusters {
		v.set(c, 0)
	}
	return v.flushFAT()
}

func (v *Volume) set(c, next uint32) {
	v.fat[c] = v.fat[c]&^clusterMask | next
	v.dirty[int64(c)*4/sector] = true
}

// flushFAT writes the changed sectors of both FATs and waits until they are durable.
func (v *Volume) flushFAT() error {
	if len(v.dirty) == 0 {
		return nil
	}
	sectors := make([]int64, 0, len(v.dirty))
	for s := range v.dirty {
		sectors = append(sectors, s)
	}
	slices.Sort(sectors)
	for copy := range int64(2) {
		for _, s := range sectors {
			b := make([]byte, sector)
			for i := range int64(sector / 4) {
				if c := s*sector/4 + i; c < int64(len(v.fat)) {
					binary.LittleEndian.PutUint32(b[4*i:], v.fat[c])
				}
			}
			if err := v.write(b, v.fatAt+copy*v.fatBytes+s*sector); err != nil {
				return err
			}
		}
	}
	clear(v.dirty)
	v.mirrored = true
	return v.dev.Sync()
}

// writeInfo tells drivers how much is free and where to look for it.
func (v *Volume) writeInfo() error {
	free, last := v.free(), uint32(firstData)
	for c := range v.fat {
		if c >= firstData && v.next(uint32(c)) != 0 {
			last = uint32(c)
		}
	}
	for _, s := range v.info {
		b := make([]byte, sector)
		if err := v.read(b, s*sector); err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(b[488:], uint32(len(free)))
		binary.LittleEndian.PutUint32(b[492:], last)
		if err := v.write(b, s*sector); err != nil {
			return err
		}
	}
	return v.dev.Sync()
}

func (v *Volume) write(b []byte, at int64) error {
	n, err := v.dev.WriteAt(b, v.offset+at)
	v.written += int64(n)
	return err
}
