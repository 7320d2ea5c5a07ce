package format

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/sparse"
	"github.com/kiln-os/kiln/internal/testtools"
)

// sample is a raw image with what a disk may have: data that packs well and data that
// does not, in and across units, zeros that are no hole, holes that are large, and a
// size that is no multiple of anything but sectors. dense is the same with few holes.
func sample(t testing.TB) (holes, dense string) {
	t.Helper()
	dir := t.TempDir()
	holes, dense = filepath.Join(dir, "holes.img"), filepath.Join(dir, "dense.img")
	f, err := os.Create(holes)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random := rand.NewChaCha8(sha256.Sum256([]byte("sample")))
	noise := make([]byte, 5<<20+1234)
	_, _ = random.Read(noise)
	text := bytes.Repeat([]byte("what is in a disk, "), 1<<18)
	err = f.Truncate(600<<20 + 3*sector)
	for _, part := range []struct {
		at   int64
		data []byte
	}{
		{0, []byte("a boot sector")},
		{1 << 20, noise},
		{17<<20 + 5000, text},
		{30 << 20, make([]byte, 3<<20)},
		{40<<20 + 65536 - 100, append(noise[:200:200], text[:300_000]...)},
		{500<<20 + 4096, noise[:100_000]}, // in the same table of 512 MiB
		{560 << 20, text[:1<<20]},         // in the next
		{600 << 20, noise[:3*sector]},
	} {
		_, e := f.WriteAt(part.data, part.at)
		err = errors.Join(err, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	g, err := os.Create(dense)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	_, err = io.Copy(g, io.NewSectionReader(f, 0, 100<<20))
	_, err2 := sparse.Copy(t.Context(), g, f, nil)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return holes, dense
}

func convert(t testing.TB, f Format, src string) string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "node"+f.Ext)
	if err := f.Convert(t.Context(), dst, src, Options{Name: "node"}); err != nil {
		t.Fatal(err)
	}
	return dst
}

func tool(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	out, err := testtools.Command(t, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// TestQEMU: qemu-img reads the same disk, and finds nothing wrong where it checks.
func TestQEMU(t *testing.T) {
	holes, _ := sample(t)
	for name, want := range map[string]struct {
		driver string
		round  int64
		check  bool
	}{
		"raw":              {"raw", sector, false},
		"qcow2":            {"qcow2", sector, true},
		"qcow2-compressed": {"qcow2", sector, true},
		"vhd":              {"vpc", mib, false},
		"vmdk":             {"vmdk", unitSize, true},
	} {
		t.Run(name, func(t *testing.T) {
			dst := convert(t, get(t, name), holes)
			tool(t, "qemu-img", "compare", "-f", "raw", "-F", want.driver, holes, dst)
			if want.check {
				tool(t, "qemu-img", "check", "-f", want.driver, dst)
			}
			var info struct {
				Format      string `json:"format"`
				VirtualSize int64  `json:"virtual-size"`
			}
			if err := json.Unmarshal(tool(t, "qemu-img", "info", "--output=json", "-f", want.driver, dst), &info); err != nil {
				t.Fatal(err)
			}
			if size := divUp(600<<20+3*sector, want.round) * want.round; info.Format != want.driver || info.VirtualSize != size {
				t.Errorf("%+v, want %d bytes", info, size)
			}
			// The other way round: what qemu-img makes of it is the disk.
			back := filepath.Join(t.TempDir(), "back.img")
			tool(t, "qemu-img", "convert", "-f", want.driver, "-O", "raw", dst, back)
			sameDisk(t, open(t, back), holes)
		})
	}
}

func get(t testing.TB, name string) Format {
	t.Helper()
	f, err := Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func open(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// sameDisk fails unless r is the disk in the file, with zeros at its end at most.
func sameDisk(t testing.TB, r io.Reader, file string) {
	t.Helper()
	want := open(t, file)
	a, b := make([]byte, mib), make([]byte, mib)
	for at := int64(0); ; at += mib {
		n, err := io.ReadFull(r, a)
		k, err2 := io.ReadFull(want, b)
		if k > n || !bytes.Equal(a[:k], b[:k]) || !bytes.Equal(a[k:n], make([]byte, n-k)) {
			t.Fatalf("the disk differs in the MiB at byte %d (%d and %d bytes, %v, %v)", at, n, k, err, err2)
		}
		if err != nil {
			if k == mib {
				t.Fatalf("the disk ends at byte %d", at+int64(n))
			}
			return
		}
	}
}

func TestCompressed(t *testing.T) {
	holes, _ := sample(t)
	files := map[string]string{}
	for name, program := range map[string]string{"raw.zst": "zstd", "raw.xz": "xz"} {
		files[name] = convert(t, get(t, name), holes)
		t.Run(name, func(t *testing.T) {
			dst := files[name]
			tool(t, program, "-t", dst)
			cmd := testtools.Command(t, program, "-dc", dst)
			r, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			sameDisk(t, r, holes)
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			if st, err := os.Stat(dst); err != nil || st.Size() > 8<<20 {
				t.Errorf("%d bytes, %v", st.Size(), err)
			}
		})
	}
	// xz knows the blocks by their index, and can unpack them in parallel.
	list := string(tool(t, "xz", "--list", "--verbose", files["raw.xz"]))
	if !regexp.MustCompile(`Blocks: +151\n`).MatchString(list) || !strings.Contains(list, "CRC64") {
		t.Errorf("xz --list:\n%s", list)
	}
	tool(t, "xz", "-t", "-T2", files["raw.xz"])
}

func TestGCE(t *testing.T) {
	holes, _ := sample(t)
	dst := convert(t, get(t, "gce"), holes)
	tool(t, "gzip", "-t", dst)
	packed := filepath.Join(t.TempDir(), "disk.tar")
	content, err := testtools.Command(t, "gzip", "-dc", dst).Output()
	if err == nil {
		err = os.WriteFile(packed, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(content) > 14<<20 {
		t.Errorf("the archive has %d bytes: it is not sparse", len(content))
	}
	dir := t.TempDir()
	tool(t, "tar", "-xf", packed, "-C", dir)
	disk := filepath.Join(dir, "disk.raw")
	if st, err := os.Stat(disk); err != nil || st.Size() != 1<<30 {
		t.Fatalf("disk.raw: %v, %v", st, err)
	}
	sameDisk(t, open(t, disk), holes)
	r := tar.NewReader(bytes.NewReader(content))
	h, err := r.Next()
	if err != nil || h.Name != "disk.raw" || h.Size != 1<<30 || h.Format != tar.FormatGNU {
		t.Fatalf("%+v, %v", h, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("behind disk.raw: %v", err)
	}
}

func TestOVA(t *testing.T) {
	holes, _ := sample(t)
	dst := convert(t, get(t, "ova"), holes)
	dir := t.TempDir()
	tool(t, "tar", "-xf", dst, "-C", dir)
	if names := strings.Fields(string(tool(t, "tar", "-tf", dst))); fmt.Sprint(names) != "[node.ovf node-disk1.vmdk node.mf]" {
		t.Errorf("members %v", names)
	}
	disk := filepath.Join(dir, "node-disk1.vmdk")
	tool(t, "qemu-img", "check", "-f", "vmdk", disk)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "vmdk", holes, disk)
	manifest, err := os.ReadFile(filepath.Join(dir, "node.mf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(manifest)), "\n") {
		name, sum, ok := strings.Cut(strings.TrimPrefix(line, "SHA256("), ")= ")
		b, err := os.ReadFile(filepath.Join(dir, name))
		if !ok || err != nil || fmt.Sprintf("%x", sha256.Sum256(b)) != sum {
			t.Errorf("%q: %v", line, err)
		}
	}
	description, err := os.ReadFile(filepath.Join(dir, "node.ovf"))
	if err != nil {
		t.Fatal(err)
	}
	var o struct {
		File struct {
			Name string `xml:"href,attr"`
			Size int64  `xml:"size,attr"`
		} `xml:"References>File"`
		Disk struct {
			Capacity int64 `xml:"capacity,attr"`
			Stored   int64 `xml:"populatedSize,attr"`
		} `xml:"DiskSection>Disk"`
	}
	if err := xml.Unmarshal(description, &o); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(disk)
	if err != nil || o.File.Name != "node-disk1.vmdk" || o.File.Size != st.Size() || o.Disk.Capacity != 600<<20+unitSize || o.Disk.Stored < 10<<20 || o.Disk.Stored > 14<<20 {
		t.Errorf("%+v, file of %d bytes, %v", o, st.Size(), err)
	}
}

// TestPowerVS: the layout of PowerVC's exports, whose disk has whole GiB.
func TestPowerVS(t *testing.T) {
	holes, _ := sample(t)
	dst := convert(t, get(t, "powervs"), holes)
	tool(t, "gzip", "-t", dst)
	dir := t.TempDir()
	unpacked := filepath.Join(dir, "node.ova")
	content, err := testtools.Command(t, "gzip", "-dc", dst).Output()
	if err == nil {
		err = os.WriteFile(unpacked, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if names := strings.Fields(string(tool(t, "tar", "-tf", unpacked))); fmt.Sprint(names) != "[node.ovf node.meta disk.raw]" {
		t.Errorf("members %v", names)
	}
	tool(t, "tar", "-xf", unpacked, "-C", dir)
	disk := filepath.Join(dir, "disk.raw")
	if st, err := os.Stat(disk); err != nil || st.Size() != 1<<30 {
		t.Fatalf("disk.raw: %v, %v", st, err)
	}
	sameDisk(t, open(t, disk), holes)
	if meta, err := os.ReadFile(filepath.Join(dir, "node.meta")); err != nil || string(meta) != "os-type = rhel\narchitecture = ppc64le\nvol1-file = disk.raw\nvol1-type = boot\n" {
		t.Errorf("summary %q, %v", meta, err)
	}
	description, err := os.ReadFile(filepath.Join(dir, "node.ovf"))
	if err != nil {
		t.Fatal(err)
	}
	var o struct {
		File struct {
			Name string `xml:"href,attr"`
			Size int64  `xml:"size,attr"`
		} `xml:"References>File"`
		Disk struct {
			Capacity int64 `xml:"capacity,attr"`
		} `xml:"DiskSection>Disk"`
		Architecture string `xml:"VirtualSystemCollection>VirtualSystem>OperatingSystemSection>architecture"`
		Boot         string `xml:"VirtualSystemCollection>VirtualSystem>VirtualHardwareSection>Item>boot"`
	}
	if err := xml.Unmarshal(description, &o); err != nil {
		t.Fatal(err)
	}
	if o.File.Name != "disk.raw" || o.File.Size != 1<<30 || o.Disk.Capacity != 20<<30 || o.Architecture != "ppc64le" || o.Boot != "True" {
		t.Errorf("%+v", o)
	}
}

// TestGolden: the same disk gives the same bytes, on every host, with holes and
// without, on one processor and on many.
func TestGolden(t *testing.T) {
	holes, dense := sample(t)
	for name, want := range map[string]string{
		"raw":              "3011f4a5dbfb61478384ebd7c73a1ee9ef45e23c3f52a40ffaa8532283d295d6",
		"raw.zst":          "9b8ed6721caa2f8fcc4d5c344d31dc8f550a19ea4041810204b50db1b6b2ab25",
		"raw.xz":           "ecbe5a9e932003e10e8f59438b5661d5cb38e8f9182873f005b739c42ae60f04",
		"qcow2":            "806f9efc0fdbf067d2edfa1408e419231d8d40a2ba531471d485ac24ae3488cd",
		"qcow2-compressed": "0c63cf40970081cdb0a8191a138c03c9b27996f7b57b3b1f2eedaef1fc38d39f",
		"vhd":              "6f89c00568568729160216fd2759ae4cc3e175d9982058cf3820213a72dba33e",
		"vmdk":             "81389307bf601c5635e82dc3e7ec8206551e3b2826d53b10a7ab9165c3376837",
		"ova":              "12b2da3f82c4c1ab36a05a1c6142fcd6f916334decc5c45176700c7aaca2bb95",
		"powervs":          "8ba9e1be7078079d7800047bf964d5321b91c510bb9c9a4916167b85dddf2996",
		"gce":              "4ea381cfc1581dfa3854e55d4c66afd201064ba216760988c861b6ccb1296f19",
	} {
		if got := digest(t, convert(t, get(t, name), holes)); got != want {
			t.Errorf("%s: digest %s, want %s", name, got, want)
		}
		if got := digest(t, convert(t, get(t, name), dense)); got != want {
			t.Errorf("%s without holes: digest %s, want %s", name, got, want)
		}
		before := runtime.GOMAXPROCS(1)
		got := digest(t, convert(t, get(t, name), holes))
		runtime.GOMAXPROCS(before)
		if got != want {
			t.Errorf("%s on one processor: digest %s, want %s", name, got, want)
		}
	}
	if len(formats) != 10+2 { // live_test.go has those that boot without a disk
		t.Error("a format has no digest here")
	}
}

func digest(t testing.TB, name string) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, open(t, name)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestEmptyDisk: a disk of zeros is a disk, too.
func TestEmptyDisk(t *testing.T) {
	src := filepath.Join(t.TempDir(), "empty.img")
	if err := errors.Join(os.WriteFile(src, nil, 0o600), os.Truncate(src, 5*sector)); err != nil {
		t.Fatal(err)
	}
	for name, driver := range map[string]string{"qcow2": "qcow2", "qcow2-compressed": "qcow2", "vhd": "vpc", "vmdk": "vmdk"} {
		dst := convert(t, get(t, name), src)
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", driver, src, dst)
	}
	for name, program := range map[string]string{"raw.zst": "zstd", "raw.xz": "xz", "gce": "gzip", "powervs": "gzip"} {
		tool(t, program, "-t", convert(t, get(t, name), src))
	}
}

func TestRefuses(t *testing.T) {
	holes, _ := sample(t)
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd.img")
	if err := os.WriteFile(odd, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(dir, "out")
	qcow2 := get(t, "qcow2")
	for _, c := range []struct {
		src, dst string
		o        Options
		want     string
	}{
		{odd, dst, Options{Name: "a"}, "whole sectors"},
		{holes, holes, Options{Name: "a"}, "is the image itself"},
		{filepath.Join(dir, "absent"), dst, Options{Name: "a"}, "no such file"},
		{holes, dst, Options{Name: "a b"}, "no name for a disk"},
		{holes, filepath.Join(dir, "absent", "out"), Options{Name: "a"}, "no such file"},
	} {
		if err := qcow2.Convert(t.Context(), c.dst, c.src, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s to %s: error %v, want %q", c.src, c.dst, err, c.want)
		}
	}
	for name, kind := range map[string]string{"raw.zst": Zstd, "raw.xz": XZ, "qcow2": Qcow2, "qcow2-compressed": Qcow2, "vhd": VHD, "vmdk": VMDK, "ova": Tar, "powervs": Gzip, "gce": Gzip} {
		var notRaw *NotRawError
		err := qcow2.Convert(t.Context(), dst, convert(t, get(t, name), holes), Options{Name: "a"})
		if !errors.As(err, &notRaw) || notRaw.Kind != kind {
			t.Errorf("%s as a source: %v", name, err)
		}
	}
	huge := filepath.Join(dir, "huge.img")
	if err := errors.Join(os.WriteFile(huge, nil, 0o600), os.Truncate(huge, 2048<<30)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"vhd": "at most 2040", "vmdk": "less than 2048"} {
		if err := get(t, name).Convert(t.Context(), dst, huge, Options{Name: "a"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s of 2 TiB: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestInterrupt(t *testing.T) {
	holes, _ := sample(t)
	for _, f := range All() {
		if f.Name == "pxe" || f.Name == "iso" {
			continue // of a node's image alone; see TestLiveRefuses
		}
		ctx, cancel := context.WithCancel(t.Context())
		dst := filepath.Join(t.TempDir(), "out")
		err := f.Convert(ctx, dst, holes, Options{Name: "a", Progress: func(int64) { cancel() }})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", f.Name, err)
		}
		if _, err := os.Stat(dst); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a half-made file: %v", f.Name, err)
		}
	}
}

func TestForFile(t *testing.T) {
	for path, want := range map[string]string{
		"a.img": "raw", "a.raw": "raw", "a.img.zst": "raw.zst", "a.img.xz": "raw.xz", "b/a.qcow2": "qcow2", "a.vhd": "vhd", "a.vmdk": "vmdk", "a.ova": "ova", "a.ova.gz": "powervs", "a.tar.gz": "gce", "a.iso": "iso", "a.pxe.tar": "pxe",
	} {
		if f, err := ForFile(path); err != nil || f.Name != want {
			t.Errorf("%s: %s, %v", path, f.Name, err)
		}
	}
	if _, err := ForFile("a.dmg"); err == nil || !strings.Contains(err.Error(), "qcow2-compressed") {
		t.Errorf("error %v", err)
	}
}

// TestChangedMeanwhile: a format whose image is read twice finds out that it is not
// the same the second time.
func TestChangedMeanwhile(t *testing.T) {
	holes, _ := sample(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // few pieces are read ahead
	f, err := os.OpenFile(holes, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = get(t, "gce").Convert(t.Context(), filepath.Join(t.TempDir(), "out"), holes, Options{Name: "a", Progress: func(int64) {
		if _, err := f.WriteAt(make([]byte, mib), 560<<20); err != nil {
			t.Error(err)
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "was changed while it was read") {
		t.Errorf("error %v", err)
	}
}
