package flash

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// parsePlist reads a property list in XML, as the Mac's diskutil writes it: its values
// are map[string]any, []any, string, int64 and bool.
func parsePlist(b []byte) (map[string]any, error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("property list: %w", err)
		}
		if s, ok := t.(xml.StartElement); ok && s.Name.Local == "dict" {
			v, err := plistValue(d, s, 0)
			if err != nil {
				return nil, fmt.Errorf("property list: %w", err)
			}
			return v.(map[string]any), nil
		}
	}
}

const plistDepth = 32

// plistValue reads the element that begins with s.
func plistValue(d *xml.Decoder, s xml.StartElement, depth int) (any, error) {
	if depth > plistDepth {
		return nil, errors.New("too deep")
	}
	switch s.Name.Local {
	case "dict", "array":
		dict, list, key := map[string]any{}, []any{}, ""
		for {
			t, err := d.Token()
			if err != nil {
				return nil, err
			}
			if _, ok := t.(xml.EndElement); ok {
				if s.Name.Local == "array" {
					return list, nil
				}
				return dict, nil
			}
			e, ok := t.(xml.StartElement)
			if !ok {
				continue
			}
			if e.Name.Local == "key" {
				if err := d.DecodeElement(&key, &e); err != nil {
					return nil, err
				}
				continue
			}
			v, err := plistValue(d, e, depth+1)
			if err != nil {
				return nil, err
			}
			dict[key], list = v, append(list, v)
		}
	case "true", "false":
		return s.Name.Local == "true", d.Skip()
	}
	var text string
	if err := d.DecodeElement(&text, &s); err != nil && err != io.EOF {
		return nil, err
	}
	if s.Name.Local == "integer" {
		return strconv.ParseInt(text, 10, 64)
	}
	return text, nil
}

func texts(v any) (out []string) {
	list, _ := v.([]any)
	for _, e := range list {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// macDisk is the disk with the given name, out of what diskutil says about it, about
// all disks and about the volume of the system.
func macDisk(name string, info, all, system map[string]any) Disk {
	d := Disk{Path: "/dev/" + name}
	d.Size, _ = info["TotalSize"].(int64)
	d.sector, _ = info["DeviceBlockSize"].(int64)
	d.Model, _ = info["MediaName"].(string)
	d.Removable, _ = info["RemovableMediaOrExternalDevice"].(bool)
	if writable, ok := info["WritableMedia"].(bool); ok {
		d.ReadOnly = !writable
	}
	// The system's volume lies in a container, whose stores are partitions.
	stores, _ := system["APFSPhysicalStores"].([]any)
	for _, s := range stores {
		store, _ := s.(map[string]any)
		id, _ := store["APFSPhysicalStore"].(string)
		d.System = d.System || wholeDisk(id) == name
	}
	if whole, ok := system["ParentWholeDisk"].(string); ok && whole == name {
		d.System = true
	}
	list, _ := all["AllDisksAndPartitions"].([]any)
	for _, e := range list {
		one, _ := e.(map[string]any)
		if id, _ := one["DeviceIdentifier"].(string); id != name {
			continue
		}
		parts, _ := one["Partitions"].([]any)
		for _, p := range append(parts, one) {
			part, _ := p.(map[string]any)
			if at, _ := part["MountPoint"].(string); at != "" {
				d.Mounts = append(d.Mounts, at)
			}
		}
	}
	return d
}

// wholeDisk makes disk0 of disk0s2.
func wholeDisk(id string) string {
	for i := len("disk"); i < len(id); i++ {
		if id[i] == 's' {
			return id[:i]
		}
	}
	return id
}
