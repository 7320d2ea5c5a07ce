// Program kiln-userdata runs in the initramfs of an image for a cloud, at the first
// boot: it leaves the machine's user data where Ignition looks for it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/userdata"
)

// out is what Ignition's user.ign leads to.
const out = "/run/kiln/userdata/config.ign"

// answerTime is how long a metadata service has to answer: a network that begins with a
// switch which learns takes a minute.
const answerTime = 5 * time.Minute

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: kiln-userdata PLATFORM")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	if err := run(ctx, os.Args[1]); err != nil {
		say(err.Error())
		os.Exit(1)
	}
}

// say writes a line for the console.
func say(text string) { fmt.Println("Kiln: " + text) }

func run(ctx context.Context, platform string) error {
	m := userdata.Machine{
		Service: &userdata.Service{URL: "http://169.254.169.254", Log: say},
		Drive:   func(context.Context) ([]byte, bool, error) { return userdata.ReadConfigDrive() },
		Network: startNetwork,
	}
	data, err := userdata.Fetch(ctx, platform, m)
	if err != nil {
		return err
	}
	if userdata.Remote(data) {
		if err := nameservers(ctx); err != nil {
			return err
		}
	}
	if data == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(out, data, 0o600)
}

// startNetwork starts networkd, which asks DHCP for an address.
func startNetwork(ctx context.Context) error {
	text, err := exec.CommandContext(ctx, "/usr/bin/systemctl", "start", "systemd-networkd.service").CombinedOutput()
	if err != nil {
		return fmt.Errorf("the network is needed for user data and does not start: %w: %s", err, text)
	}
	return nil
}

// nameserverTime is how long DHCP has to name a name server; sources may have addresses
// in their place.
const nameserverTime = time.Minute

// nameservers tells Ignition's resolver what networkd has learnt, once it has.
func nameservers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, nameserverTime)
	defer cancel()
	for {
		state, err := os.ReadFile("/run/systemd/netif/state")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if text := userdata.ResolvConf(state); text != "" {
			return os.WriteFile("/etc/resolv.conf", []byte(text), 0o644)
		}
		select {
		case <-ctx.Done():
			say("the user data has sources in the network, and no DHCP server has named a name server")
			return nil
		case <-time.After(time.Second):
		}
	}
}
