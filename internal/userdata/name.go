package userdata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/kiln-os/kiln/internal/platform"
)

// NameFile is where Ignition leaves the name that a machine's platform has given it, for
// nodes that take it.
const NameFile = "/etc/kiln/platform-name"

// name is of labels of a DNS name; 63 is what Kubernetes takes.
var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// Name returns the name that the platform has given the machine, in lower case; "" if
// it has given none. The network is on already if it takes one.
func Name(ctx context.Context, id string, m Machine) (string, error) {
	var data []byte
	var err error
	switch id {
	case platform.AWS:
		data, err = m.Service.aws(ctx, "/latest/meta-data/local-hostname")
	case platform.Azure:
		data, err = m.Service.get(ctx, "/metadata/instance/compute/name?api-version=2021-01-01&format=text", azureHeaders)
	case platform.GCP:
		data, err = m.Service.get(ctx, "/computeMetadata/v1/instance/name", googleHeaders)
	case platform.OpenStack, platform.PowerVS:
		data, err = openstackName(ctx, id, m)
	}
	if err != nil {
		return "", err
	}
	// Several names, of several networks, are separated by spaces.
	first, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(string(data))), " ")
	if first != "" && !name.MatchString(first) {
		return "", errors.New("the name that the platform gives this machine is none of at most 63 of a-z, 0-9, dots and dashes")
	}
	return first, nil
}

func openstackName(ctx context.Context, id string, m Machine) ([]byte, error) {
	const file = "openstack/latest/meta_data.json"
	data, found, err := m.Drive(file)
	if err == nil && !found && id == platform.OpenStack {
		data, err = m.Service.get(ctx, "/"+file, nil)
	}
	if err != nil || len(data) == 0 {
		return nil, err
	}
	var meta struct {
		Hostname string `json:"hostname"`
	}
	if err := json.Unmarshal(data, &meta); err != nil {
		return nil, fmt.Errorf("the metadata of this machine is damaged: %s", inJSON(data, err))
	}
	return []byte(meta.Hostname), nil
}

// NameConfig is the Ignition config that leaves a name at NameFile; for no name it does
// nothing.
func NameConfig(name string) ([]byte, error) {
	type file struct {
		Path     string            `json:"path"`
		Mode     int               `json:"mode"`
		Contents map[string]string `json:"contents"`
	}
	config := map[string]any{"ignition": map[string]string{"version": "3.0.0"}}
	if name != "" {
		source := map[string]string{"source": "data:," + url.PathEscape(name+"\n")}
		config["storage"] = map[string]any{"files": []file{{NameFile, 0o644, source}}}
	}
	return json.Marshal(config)
}
