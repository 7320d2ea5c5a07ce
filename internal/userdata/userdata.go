// Package userdata is what a node learns from the cloud that it runs in, in the
// initramfs of its first boot: the user data, an Ignition config that is merged over
// the stamp, and its name.
//
// INPUTS: the platform's config drive or metadata service.
// OUTPUTS: the user data, checked to be an Ignition config that the node reads; the
// machine's name.
//
// Ignition's own sources of user data are not used: on one platform it waits for a
// drive that a machine made of a disk has not, on another it asks the metadata service
// anew in each stage, and what it says of user data that is meant for another program
// is no help.
package userdata

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"

	"github.com/kiln-os/kiln/internal/platform"
)

// Machine is where user data is read.
type Machine struct {
	// Service is the platform's metadata service.
	Service *Service
	// Drive returns a file of the machine's config drive, and whether there is such a
	// drive.
	Drive func(file string) (data []byte, found bool, err error)
	// Network switches the network on. It need not wait for it: the service is asked
	// until it answers.
	Network func(ctx context.Context) error
}

// Fetch returns the user data of a machine on a platform, nil if it has none. Data that
// is no Ignition config is an error.
func Fetch(ctx context.Context, id string, m Machine) ([]byte, error) {
	data, online, err := fetch(ctx, id, m)
	if err != nil {
		return nil, err
	}
	if Empty(data) {
		return nil, nil
	}
	if err := Check(data); err != nil {
		return nil, err
	}
	if !online && Remote(data) {
		return data, m.Network(ctx)
	}
	return data, nil
}

func fetch(ctx context.Context, id string, m Machine) (data []byte, online bool, err error) {
	if !platform.Cloud(id) {
		return nil, false, fmt.Errorf("user data of platform %q: Kiln knows that of %s, %s, %s, %s and %s", id, platform.AWS, platform.Azure, platform.GCP, platform.OpenStack, platform.PowerVS)
	}
	if id == platform.OpenStack || id == platform.PowerVS {
		data, found, err := m.Drive("openstack/latest/user_data")
		// PowerVS has no metadata service: a machine without a drive has no user data.
		if err != nil || found || id == platform.PowerVS {
			return data, false, err
		}
	}
	if err := m.Network(ctx); err != nil {
		return nil, false, err
	}
	switch id {
	case platform.AWS:
		data, err = m.Service.aws(ctx, "/latest/user-data")
	case platform.Azure:
		data, err = m.Service.azure(ctx)
	case platform.GCP:
		data, err = m.Service.get(ctx, "/computeMetadata/v1/instance/attributes/user-data", googleHeaders)
	case platform.OpenStack:
		data, err = m.Service.get(ctx, "/openstack/latest/user_data", nil)
		if errors.Is(err, errNoAnswer) {
			err = fmt.Errorf("%w; a cloud without that service can give machines a config drive", err)
		}
	}
	return data, true, err
}

// What services want to see, so that no page of a browser can ask them.
var (
	googleHeaders = http.Header{"Metadata-Flavor": {"Google"}}
	azureHeaders  = http.Header{"Metadata": {"true"}}
)

func (s *Service) aws(ctx context.Context, path string) ([]byte, error) {
	// Machines may refuse requests without a token, and old ones know no tokens.
	const life = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	token, status, err := s.ask(ctx, http.MethodPut, "/latest/api/token", http.Header{life: {"300"}})
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	switch status {
	case http.StatusOK:
		headers.Set("X-Aws-Ec2-Metadata-Token", string(token))
	case http.StatusForbidden:
		// That is the answer where the machine's owner has switched the service off.
		return nil, nil
	}
	return s.get(ctx, path, headers)
}

func (s *Service) azure(ctx context.Context) ([]byte, error) {
	text, err := s.get(ctx, "/metadata/instance/compute/userData?api-version=2021-01-01&format=text", azureHeaders)
	if err != nil {
		return nil, err
	}
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(data, text)
	if err != nil {
		return nil, fmt.Errorf("the metadata service at %s gives user data that is not in Base64", s.URL)
	}
	return data[:n], nil
}
