package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestConsoleFailsEarly(t *testing.T) {
	for _, tc := range []struct{ name, text, kind string }{
		{"panic", "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs\n", "kernel panic"},
		{"initrd emergency", "\x1b[0;1;31mEntering emergency mode.\x1b[0m Exit the shell to continue.\n", "emergency mode"},
		{"emergency", "You are in emergency mode. After logging in, type ...\n", "emergency mode"},
		{"dependency", "[\x1b[0;1;38:5:185mDEPEND\x1b[0m] Dependency failed for \x1b[0;1;39msysroot.mount\x1b[0m - /sysroot.\n", "a unit's dependency failed"},
		{"edk2 no option", "BdsDxe: No bootable option or device was found.\r\n", "firmware found nothing to boot"},
		{"edk2 shell prompt", "\x1b[06;01H\x1b[1m\x1b[33m\x1b[40mShell> \x1b[0m", "firmware fell back to its shell"},
		{"edk2 PXE, unfinished line", "\r\n>>Start PXE over IPv4.", "firmware fell back to network boot"},
		{"SLOF", "E3404: Not a bootable device!\n", "firmware found nothing to boot"},
		{"SLOF without a disk", "E3405: No such device\n\nE3407: Load failed\n", "firmware found nothing to boot"},
		{"GRUB", "error: no such device.\ngrub rescue> ", "the boot loader stopped"},
		{"GRUB without a system", "Minimal BASH-like line editing is supported.\ngrub> ", "the boot loader stopped"},
		{"verity", "[   12.0] device-mapper: verity: 254:2: data block 17 is corrupted\n", "verity found corruption"},
		{"initramfs", "echo[123]: Kiln: this boot has stopped; why stands above. It is tried again in 5 minutes.\n", "the initramfs has stopped"},
		{"systemd", "[!!!!!!] Failed to mount API filesystems, freezing.\n", "systemd has stopped"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var told error
			c := newConsole(time.Now(), func(err error) { told = err })
			fmt.Fprintf(c, "first line\n")
			// One byte at a time: a pattern is found however the text is cut.
			for i := range len(tc.text) {
				_, _ = c.Write([]byte{tc.text[i]})
			}
			_, err := c.WaitFor(t.Context(), regexp.MustCompile(`login:`))
			var ce *ConsoleError
			if !errors.As(err, &ce) || ce.Kind != tc.kind {
				t.Fatalf("got %v, want a ConsoleError %q", err, tc.kind)
			}
			if !strings.Contains(err.Error(), "first line") {
				t.Errorf("error %q does not hold the console's tail", err)
			}
			if told != c.Failure() || told == nil {
				t.Errorf("onFail got %v", told)
			}
		})
	}
}

func TestConsoleHealthyBoot(t *testing.T) {
	c := newConsole(time.Now(), func(err error) { t.Errorf("failed: %v", err) })
	fmt.Fprint(c, "BdsDxe: loading Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)\r\nBdsDxe: starting Boot0001\r\n"+
		"[    0.0] Command line: panic=30\r\n[  OK  ] Reached target emergency-check.\r\n"+
		"systemd[1]: emergency.service: unit is masked\r\nLinux version 6.12\r\n")
	if err := c.Failure(); err != nil {
		t.Error(err)
	}
}

func TestWaitForSeesOnlyWhatComesAfterTheMark(t *testing.T) {
	var log bytes.Buffer
	c := newConsole(time.Now(), nil, &log)
	login := regexp.MustCompile(`(\w+) login:`)
	fmt.Fprint(c, "one login: ")
	l, err := c.WaitFor(t.Context(), login)
	if err != nil || !strings.HasPrefix(l.Text, "one") {
		t.Fatalf("%v, %v", l, err)
	}
	mark := c.Mark()
	got := make(chan string)
	go func() {
		l, err := c.WaitForSince(t.Context(), mark, login)
		got <- fmt.Sprint(l.Text, err)
	}()
	fmt.Fprint(c, "still one login: \ntwo ")
	fmt.Fprint(c, "login: ") // a prompt: no newline
	if s := <-got; s != "two login: <nil>" {
		t.Errorf("got %q", s)
	}
	c.end(ErrExited)
	if s := log.String(); strings.Count(s, "login:") != 3 || !strings.HasPrefix(s, "[    0.0") {
		t.Errorf("log:\n%s", s)
	}
}

func TestWaitForEnds(t *testing.T) {
	c := newConsole(time.Now(), nil)
	fmt.Fprint(c, "last words\n")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("took too long"))
	defer cancel()
	if _, err := c.WaitFor(ctx, regexp.MustCompile(`x{9}`)); err == nil || !strings.Contains(err.Error(), "took too long") || !strings.Contains(err.Error(), "last words") {
		t.Errorf("timeout: %v", err)
	}
	c.end(ErrExited)
	if _, err := c.WaitFor(t.Context(), regexp.MustCompile(`x{9}`)); !errors.Is(err, ErrExited) || !strings.Contains(err.Error(), "last words") {
		t.Errorf("exit: %v", err)
	}
}

// TestConsoleOfAFaultyMachine: what ends other machines' boots is waited past.
func TestConsoleOfAFaultyMachine(t *testing.T) {
	c := newConsole(time.Now(), func(err error) { t.Errorf("failed: %v", err) })
	c.faulty = true
	fmt.Fprint(c, "device-mapper: verity: 254:0: data block 7 is corrupted\nYou are in emergency mode\nwhat to do\n")
	if l, err := c.WaitFor(t.Context(), regexp.MustCompile(`^what to do`)); err != nil || l.Text != "what to do" {
		t.Errorf("%+v, %v", l, err)
	}
	if err := c.Failure(); err != nil {
		t.Error(err)
	}
}

func TestConsoleForgetsTheOldest(t *testing.T) {
	c := newConsole(time.Now(), nil)
	for i := range maxConsoleLines + 10 {
		fmt.Fprintf(c, "line %d\n", i)
	}
	if n := len(c.Lines()); n > maxConsoleLines {
		t.Errorf("%d lines are kept", n)
	}
	if want := maxConsoleLines + 10; c.Mark() != want {
		t.Errorf("mark %d, want %d", c.Mark(), want)
	}
	if _, ok := c.First(c.Mark()-1, regexp.MustCompile(`line \d+9$`)); !ok {
		t.Error("the last line is not found by its mark")
	}
}

// FuzzConsole: whatever a guest sends, lines hold no control characters, nothing
// is kept without bound, and the way the bytes were cut does not matter.
func FuzzConsole(f *testing.F) {
	f.Add([]byte("a\x1b[31mb\r\nc"), 2)
	f.Add([]byte("\x1b]0;title\x07x\n\x1b[2J\x1b[01;01H"), 3)
	f.Add([]byte("\xff\xfe\n\x00"), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole, parts := newConsole(time.Now(), nil), newConsole(time.Now(), nil)
		_, _ = whole.Write(b)
		cut = min(max(cut, 0), len(b))
		_, _ = parts.Write(b[:cut])
		_, _ = parts.Write(b[cut:])
		if whole.Tail(1<<20) != parts.Tail(1<<20) {
			t.Errorf("%q\n%q", whole.Tail(1<<20), parts.Tail(1<<20))
		}
		for _, l := range whole.Lines() {
			for _, r := range l.Text {
				if r < ' ' && r != '\t' {
					t.Errorf("control character in %q", l.Text)
				}
			}
		}
	})
}
