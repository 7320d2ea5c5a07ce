//go:build unix

package procgroup

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestInterrupt ends a shell and the program that it started.
func TestInterrupt(t *testing.T) {
	// A shell gives those in the background no interrupts: the child is in front.
	cmd := exec.Command("sh", "-c", `sh -c 'echo $$; exec sleep 60'; true`)
	Set(cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if !Alive(child) || !Alive(os.Getpid()) {
		t.Error("they are not alive")
	}
	if err := Interrupt(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the shell was not interrupted")
	}
	for end := time.Now().Add(10 * time.Second); Alive(child); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the child outlives its parent")
		}
	}
}
