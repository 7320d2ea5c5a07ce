package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/manpage/manpagetest"
)

// TestDocs writes the pages and completions twice: they are the same, and name
// every command and flag.
func TestDocs(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	var written [2]map[string]string
	for i := range written {
		dir := t.TempDir()
		if err := Run(context.Background(), []string{"docs", dir}, Streams{Out: io.Discard, Err: io.Discard}); err != nil {
			t.Fatal(err)
		}
		written[i] = manpagetest.Read(t, dir)
	}
	if !reflect.DeepEqual(written[0], written[1]) {
		t.Error("two runs differ")
	}
	root := (&app{}).rootCommand()
	manpagetest.Complete(t, root, "man/man1", 1, written[0])
	if page := written[0]["man/man1/imagegen.1"]; !strings.Contains(page, "KILN_MIRROR") || !strings.Contains(page, "interrupted; no half-made file") {
		t.Errorf("imagegen(1) lacks the environment or the exit codes:\n%s", page)
	}
	// Of backslashes there are as many as in the help (groff: \\ is one).
	if page := written[0]["man/man1/imagegen-flash.1"]; !strings.Contains(page, `\\\\\&.\\PhysicalDriveN`) || !strings.Contains(page, `\\\\.\\PhysicalDrive3`) {
		t.Errorf("imagegen-flash(1) lacks the disks of Windows:\n%s", page)
	}
	for file, want := range map[string]string{
		"completions/imagegen":      "complete -o default",
		"completions/_imagegen":     "#compdef imagegen",
		"completions/imagegen.fish": "complete -c imagegen",
	} {
		if !strings.Contains(written[0][file], want) {
			t.Errorf("%s lacks %q", file, want)
		}
	}
}

func TestDocsNeedADate(t *testing.T) {
	dir := t.TempDir()
	for _, date := range []string{"", "today"} {
		t.Setenv("SOURCE_DATE_EPOCH", date)
		err := Run(context.Background(), []string{"docs", filepath.Join(dir, "x")}, Streams{Out: io.Discard, Err: io.Discard})
		if err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
			t.Errorf("%q: %v", date, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	manpagetest.Examples(t, (&app{}).rootCommand())
}
