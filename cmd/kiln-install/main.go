// Program kiln-install runs in the initramfs of a node that was booted without a disk,
// if the kernel's command line has kiln.install: it installs the node on a disk, and
// switches the machine off. It does not end before the machine does, so that nothing is
// booted besides, and what it says stays on the console.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/kiln-os/kiln/internal/flash"
	"github.com/kiln-os/kiln/internal/installer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	then, err := install(ctx)
	if err == nil {
		err = end(ctx, then)
	}
	if err != nil && ctx.Err() == nil {
		say(err.Error())
		say("Nothing is tried again by itself: Ctrl+Alt+Del starts this machine again.")
	}
	<-ctx.Done()
}

// say writes a line for the console.
func say(text string) { fmt.Println("Kiln: " + text) }

// install installs the node, and returns what the machine is to do then.
func install(ctx context.Context) (then string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("this node was not installed: %w", err)
		}
	}()
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	o, err := installer.ParseOptions(string(line))
	if err != nil {
		return "", err
	}
	src := installer.Source{Dir: "/kiln", Usr: "/dev/mapper/usr"}
	machine := installer.Machine{Root: "/", List: flash.List, Patience: time.Minute}
	return o.Then, installer.Install(ctx, o, src, machine, say)
}

// end switches the machine off, or has it start again.
func end(ctx context.Context, then string) error {
	if then == installer.Reboot {
		say("This machine starts again now, from the disk if that comes first.")
	} else {
		say("This machine is switched off now. Take the CD or stick out, or the network out of the boot order, before it is switched on.")
	}
	text, err := exec.CommandContext(ctx, "/usr/bin/systemctl", "--no-block", then).CombinedOutput()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("systemctl %s: %w: %s", then, err, text)
	}
	return nil
}
