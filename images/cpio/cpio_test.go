package cpio

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/testtools"
)

func sample() *tree.Tree {
	t := tree.New()
	t.AddFile("usr/bin/a", 0o4755, []byte("hello"))
	t.Set("usr/bin/b", &tree.Entry{Type: tree.Hardlink, Link: "usr/bin/a"})
	t.AddSymlink("init", "usr/bin/a")
	t.Set("dev/console", &tree.Entry{Type: tree.CharDev, Mode: 0o600, Major: 5, Minor: 1})
	t.AddDir("tmp", 0o1777)
	return t
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, sample(), time.Unix(1700000000, 0)); err != nil {
		t.Fatal(err)
	}
	if b.Len()%512 != 0 {
		t.Errorf("archive has %d bytes, no multiple of 512", b.Len())
	}
	if n, err := Size(sample()); err != nil || n != int64(b.Len()) {
		t.Errorf("Size says %d, %v; the archive has %d bytes", n, err, b.Len())
	}
	sum := sha256.Sum256(b.Bytes())
	const golden = "9ad7754c4caf1f1fd96aba8137d951aae763efe049cd902fa9a16b89f111ba74"
	if got := hex.EncodeToString(sum[:]); got != golden {
		t.Errorf("digest %s, golden %s", got, golden)
	}
	cmd := testtools.Command(t, "cpio", "-itv", "--quiet", "--numeric-uid-gid")
	cmd.Stdin = bytes.NewReader(b.Bytes())
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for _, want := range []string{
		"crw-------   1 0        0          5,   1", "-rwsr-xr-x   1 0        0               5",
		"init -> usr/bin/a", "drwxrwxrwt   2", "usr/bin/b",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("cpio does not list %q:\n%s", want, out)
		}
	}
	cmd = testtools.Command(t, "cpio", "-i", "--quiet", "--to-stdout", "usr/bin/b")
	cmd.Stdin = bytes.NewReader(b.Bytes())
	if out, err := cmd.Output(); err != nil || string(out) != "hello" {
		t.Errorf("the hard link holds %q, %v", out, err)
	}
}
