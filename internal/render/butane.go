package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/coreos/butane/config/common"
	butane "github.com/coreos/butane/config/fcos/v1_4"
	"github.com/coreos/ignition/v2/config/v3_3"
	"github.com/coreos/ignition/v2/config/v3_3/types"
	"github.com/coreos/vcontext/report"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/secret"
)

// butaneConfig is the part of Butane's variant fcos 1.4.0 that nodes need. That
// version makes Ignition spec 3.3.0, the newest that Debian 13's Ignition reads.
type butaneConfig struct {
	Variant string         `json:"variant"`
	Version string         `json:"version"`
	Passwd  *butanePasswd  `json:"passwd,omitempty"`
	Storage *butaneStorage `json:"storage,omitempty"`
}

type butanePasswd struct {
	Users []butaneUser `json:"users"`
}

type butaneUser struct {
	Name string   `json:"name"`
	Keys []string `json:"ssh_authorized_keys"`
}

type butaneStorage struct {
	Directories []butaneNode `json:"directories,omitempty"`
	Files       []butaneNode `json:"files,omitempty"`
}

type butaneNode struct {
	Path      string          `json:"path"`
	Mode      int             `json:"mode"`
	Overwrite *bool           `json:"overwrite,omitempty"`
	Contents  *butaneContents `json:"contents,omitempty"`
}

type butaneContents struct {
	Inline string `json:"inline"`
}

// ignition translates the entries through Butane, merges them over the user's config
// and has Ignition's own validation check the result. Warnings are errors: Butane only warns about keys
// it does not know.
func ignition(entries []entry, rootKeys []string, user types.Config) (secret.Value, error) {
	yes := true
	storage := &butaneStorage{}
	for _, e := range entries {
		if e.dir {
			// overwrite would empty a folder that is there.
			storage.Directories = append(storage.Directories, butaneNode{Path: e.path, Mode: e.mode})
			continue
		}
		storage.Files = append(storage.Files, butaneNode{Path: e.path, Mode: e.mode, Overwrite: &yes, Contents: &butaneContents{Inline: e.data.RevealString()}})
	}
	cfg := butaneConfig{Variant: "fcos", Version: "1.4.0", Storage: storage}
	if len(rootKeys) > 0 {
		cfg.Passwd = &butanePasswd{Users: []butaneUser{{Name: "root", Keys: trimmed(rootKeys)}}}
	}
	source, err := yaml.Marshal(cfg)
	if err != nil {
		return secret.Value{}, errors.New("the Butane config cannot be encoded") // the error may quote the config
	}
	// Without compression: gzip's bytes depend on the library's version.
	opts := common.TranslateBytesOptions{Raw: true, TranslateOptions: common.TranslateOptions{NoResourceAutoCompression: true}}
	ign, rep, err := butane.ToIgn3_3Bytes(source, opts)
	if err := strict("Butane", rep, err); err != nil {
		return secret.Value{}, err
	}
	own, rep, err := v3_3.Parse(ign)
	if err := strict("Ignition", rep, err); err != nil {
		return secret.Value{}, err
	}
	if reflect.DeepEqual(user, types.Config{Ignition: user.Ignition}) {
		return secret.New(ign), nil
	}
	if ign, err = json.Marshal(v3_3.Merge(user, own)); err != nil {
		return secret.Value{}, errors.New("the Ignition config cannot be encoded") // the error may quote the config
	}
	_, rep, err = v3_3.Parse(ign)
	if err := strict("Ignition", rep, err); err != nil {
		return secret.Value{}, fmt.Errorf("together with the snippets: %w", err)
	}
	return secret.New(ign), nil
}

// strict makes an error of everything a validator has to say. The text of a
// message is cut where it begins to quote a file's content.
func strict(who string, rep report.Report, err error) error {
	var errs []error
	for _, e := range rep.Entries {
		message, _, _ := strings.Cut(e.Message, "data:")
		errs = append(errs, fmt.Errorf("%s: %s at %s: %s", who, e.Kind, e.Context, message))
	}
	if len(errs) == 0 && err != nil {
		message, _, _ := strings.Cut(err.Error(), "\n")
		message, _, _ = strings.Cut(message, "`") // yaml quotes values in backquotes
		errs = append(errs, fmt.Errorf("%s: %s", who, message))
	}
	return errors.Join(errs...)
}

func trimmed(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = strings.TrimSpace(l)
	}
	return out
}
