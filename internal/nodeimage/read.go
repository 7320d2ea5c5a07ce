package nodeimage

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/kiln-os/kiln/images/disk"
	"github.com/kiln-os/kiln/images/esp"
	"github.com/kiln-os/kiln/internal/arch"
	"github.com/kiln-os/kiln/profiles"
)

// ProfileOf returns the profile of a Kiln image by its partition table, and where
// its boot partition is.
func ProfileOf(t *disk.Table) (profile string, boot disk.Placed, err error) {
	for _, name := range profiles.Names() {
		if part, ok := t.Find(IDsOf(name).ESP); ok && part.Type == disk.ESPType && part.Name == espName {
			return name, part, nil
		}
	}
	return "", disk.Placed{}, errors.New("this is no Kiln image: none of its partitions is Kiln's boot partition")
}

// CheckArch refuses an image whose /usr is of another architecture than its profile is
// for: no machine starts from it.
func CheckArch(t *disk.Table, profile string) error {
	p, err := profiles.Load(profile)
	if err != nil {
		return err
	}
	want, err := arch.Get(p.Arch)
	if err != nil {
		return err
	}
	for _, name := range arch.Names() {
		a, err := arch.Get(name)
		if err != nil {
			return err
		}
		for _, part := range t.Partitions {
			if typ := part.Type.String(); name != p.Arch && (typ == a.UsrType || typ == a.UsrVerityType) {
				return fmt.Errorf("this image is for no machine: its partition %s is for %s, and its profile, %s, for %s; build it again", part.Name, a.Go, profile, want.Go)
			}
		}
	}
	return nil
}

// NodeOf returns the profile of the image or disk f and the name of the node whose
// stamp it has: "" if it has none.
func NodeOf(f disk.File) (profile, node string, err error) {
	t, err := disk.Read(f)
	if err != nil {
		return "", "", fmt.Errorf("this is no Kiln image: %w", err)
	}
	profile, part, err := ProfileOf(t)
	if err != nil {
		return "", "", err
	}
	v, err := esp.Open(f, part.Offset, part.Size)
	if err != nil {
		return profile, "", err
	}
	files, _, err := v.Read(folder)
	if err != nil {
		return profile, "", err
	}
	config, ok := files[configFile]
	if !ok {
		return profile, "", nil
	}
	node, err = hostname(config)
	if err != nil {
		err = fmt.Errorf("the stamp: %w", err)
	}
	return profile, node, err
}

// hostname finds the node's name in its Ignition config, which holds secrets: errors
// quote nothing of it.
func hostname(config []byte) (string, error) {
	var c struct {
		Storage struct {
			Files []struct {
				Path     string `json:"path"`
				Contents struct {
					Source string `json:"source"`
				} `json:"contents"`
			} `json:"files"`
		} `json:"storage"`
	}
	if json.Unmarshal(config, &c) != nil {
		return "", errors.New("its Ignition config is damaged: stamp the image again")
	}
	for _, f := range c.Storage.Files {
		if f.Path != "/etc/hostname" {
			continue
		}
		name, err := decode(f.Contents.Source)
		if err != nil {
			return "", errors.New("its Ignition config is damaged: stamp the image again")
		}
		return strings.TrimSpace(name), nil
	}
	return "", errors.New("its Ignition config names no node: stamp the image again")
}

// decode returns what a data URL (RFC 2397) holds. The library for them brings net/http
// along, into a program that is in every image.
func decode(s string) (string, error) {
	rest, ok := strings.CutPrefix(s, "data:")
	head, data, found := strings.Cut(rest, ",")
	if !ok || !found {
		return "", errors.New("it is no data URL")
	}
	text, err := url.PathUnescape(data)
	if err != nil || !strings.HasSuffix(head, ";base64") {
		return text, err
	}
	b, err := base64.StdEncoding.DecodeString(text)
	return string(b), err
}
