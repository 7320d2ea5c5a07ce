// Program kiln-userdata runs in the initramfs of an image for a cloud, at the first
// boot: it leaves the machine's user data and its name where Ignition looks for them.
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

// What Ignition's user.ign and base.d/name.ign lead to. The latter has to be there: of a
// folder with a config that is not there Ignition takes none.
const (
	configFile = "/run/kiln/userdata/config.ign"
	nameFile   = "/run/kiln/userdata/name.ign"
)

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
		Drive:   userdata.ReadConfigDrive,
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
	if err := os.MkdirAll(filepath.Dir(configFile), 0o700); err != nil {
		return err
	}
	if err := writeName(ctx, platform, m); err != nil || data == nil {
		return err
	}
	return atomicfile.WriteFile(configFile, data, 0o600)
}

// nameTime is how long a service that has given the user data has for the name.
const nameTime = 30 * time.Second

// writeName leaves the machine's name. Most nodes have one of their own: what is wrong
// with the platform's is said, and stops no boot here.
func writeName(ctx context.Context, platform string, m userdata.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	name, err := userdata.Name(ctx, platform, m)
	if err != nil {
		say(err.Error())
	}
	config, err := userdata.NameConfig(name)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(nameFile, config, 0o600)
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
