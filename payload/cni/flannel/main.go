// Command flannel is the CNI plugin of a flannel network: it takes the node's
// subnet from the file that flanneld writes, turns it into a configuration of
// another plugin, bridge unless the network says otherwise, and calls that one.
// Its configuration is that of flannel's own plugin, so that the conflist of the
// kube-flannel DaemonSet works with it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/utils/buildversion"
)

// config is the plugin's part of a conflist.
type config struct {
	types.NetConf
	IPAM       map[string]any `json:"ipam"`
	SubnetFile string         `json:"subnetFile"`
	// DataDir keeps, per container, the configuration that the other plugin was
	// called with: DEL must get the same, also when the subnet has changed.
	DataDir       string         `json:"dataDir"`
	Delegate      map[string]any `json:"delegate"`
	RuntimeConfig map[string]any `json:"runtimeConfig"`
}

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Check: check, Del: del, Status: status},
		version.All, buildversion.BuildString("flannel"))
}

func parseConfig(stdin []byte) (config, error) {
	c := config{SubnetFile: "/run/flannel/subnet.env", DataDir: "/var/lib/cni/flannel"}
	if err := json.Unmarshal(stdin, &c); err != nil {
		return c, fmt.Errorf("network configuration: %w", err)
	}
	return c, nil
}

func add(args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	s, err := readSubnet(c.SubnetFile)
	if err != nil {
		return err
	}
	d, err := delegate(c, s)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := save(c.DataDir, args.ContainerID, raw); err != nil {
		return err
	}
	result, err := invoke.DelegateAdd(context.Background(), d["type"].(string), raw, nil)
	if err != nil {
		return fmt.Errorf("plugin %s: %w", d["type"], err)
	}
	return result.Print()
}

func check(args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	raw, kind, err := load(c.DataDir, args.ContainerID)
	if err != nil {
		return err
	}
	// The saved configuration is of ADD; the result to compare with comes now.
	var d map[string]any
	if err := json.Unmarshal(raw, &d); err != nil {
		return err
	}
	var now struct {
		PrevResult map[string]any `json:"prevResult"`
	}
	if err := json.Unmarshal(args.StdinData, &now); err != nil {
		return err
	}
	if now.PrevResult != nil {
		d["prevResult"] = now.PrevResult
	}
	if raw, err = json.Marshal(d); err != nil {
		return err
	}
	return invoke.DelegateCheck(context.Background(), kind, raw, nil)
}

func del(args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	raw, kind, err := load(c.DataDir, args.ContainerID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted before, or never added: DEL is called until it succeeds
	}
	if err != nil {
		return err
	}
	if err := invoke.DelegateDel(context.Background(), kind, raw, nil); err != nil {
		return fmt.Errorf("plugin %s: %w", kind, err)
	}
	return os.Remove(filepath.Join(c.DataDir, args.ContainerID))
}

// pluginNotAvailable is the CNI specification's error code for STATUS.
const pluginNotAvailable = 50

// status says whether ADD can work: not before flanneld has written the subnet.
func status(args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if _, err := readSubnet(c.SubnetFile); err != nil {
		return types.NewError(pluginNotAvailable, "flanneld has not set up the node's subnet", err.Error())
	}
	return nil
}

// save writes raw durably: after a power cut DEL reads either all of it or nothing.
func save(dir, id string, raw []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, id))
}

// load returns the saved configuration and the type of the plugin it is for.
func load(dir, id string) (raw []byte, kind string, err error) {
	file := filepath.Join(dir, id)
	if raw, err = os.ReadFile(file); err != nil {
		return nil, "", err
	}
	var n types.NetConf
	if err := json.Unmarshal(raw, &n); err != nil {
		return nil, "", fmt.Errorf("%s: %w", file, err)
	}
	return raw, n.Type, nil
}
