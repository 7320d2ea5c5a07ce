package main

import (
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/manpage"
	"github.com/kiln-os/kiln/internal/manpage/manpagetest"
)

func TestManPages(t *testing.T) {
	streams := Streams{Out: io.Discard, Err: io.Discard}
	var written [2]map[string]string
	for i := range written {
		dir := t.TempDir()
		if err := manpage.Write(newRoot(streams), dir, 8, time.Unix(1700000000, 0).UTC()); err != nil {
			t.Fatal(err)
		}
		written[i] = manpagetest.Read(t, dir)
	}
	if !reflect.DeepEqual(written[0], written[1]) {
		t.Error("two runs differ")
	}
	manpagetest.Complete(t, newRoot(streams), "man8", 8, written[0])
	page := written[0]["man8/firstboot.8"]
	for _, want := range []string{`"FIRSTBOOT" "8" "Nov 2023"`, "wait-control-plane", "EXIT CODES", "the boot plan is missing or wrong"} {
		if !strings.Contains(strings.ReplaceAll(page, `\`, ""), want) {
			t.Errorf("firstboot(8) lacks %q:\n%s", want, page)
		}
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	manpagetest.Examples(t, newRoot(Streams{Out: io.Discard, Err: io.Discard}))
}
