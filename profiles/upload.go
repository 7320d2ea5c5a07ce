package profiles

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// UploadVars are what a profile's commands are about.
type UploadVars struct {
	// Name is the image's name on the platform, which no platform refuses: that of
	// the node with dashes for its dots.
	Name string
	// File is the image, quoted for a shell where it must be; Base is its last part.
	File, Base string
	DiskGiB    int // a size that leaves the node some room
}

// NewUploadVars returns the variables of a node's image.
func (p Profile) NewUploadVars(node, file string) UploadVars {
	base := file[strings.LastIndex(file, "/")+1:]
	return UploadVars{Name: strings.ReplaceAll(node, ".", "-"), File: quote(file), Base: quote(base), DiskGiB: max(20, (p.Disk.Minimum+1023)/1024)}
}

// Commands returns the commands that take an image to the platform: lines of a POSIX
// shell, and comments. A profile may have none.
func (p Profile) Commands(v UploadVars) ([]string, error) {
	// Not text/template: with it the linker keeps every method of a program, and the one
	// that installs nodes is in every image.
	values := map[string]string{"Name": v.Name, "File": v.File, "Base": v.Base, "DiskGiB": strconv.Itoa(v.DiskGiB)}
	var unknown string
	text := placeholder.ReplaceAllStringFunc(p.Upload, func(s string) string {
		value, ok := values[placeholder.FindStringSubmatch(s)[1]]
		if !ok {
			unknown = s
		}
		return value
	})
	if unknown != "" {
		return nil, fmt.Errorf("there is no %s; want {{.Name}}, {{.File}}, {{.Base}} or {{.DiskGiB}}", unknown)
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

// placeholder is what Commands replaces. Anything else in such braces is a mistake.
var placeholder = regexp.MustCompile(`\{\{\.?([^{}]*)\}\}`)

var plain = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// quote makes one word of a shell of s.
func quote(s string) string {
	if plain.MatchString(s) && !strings.HasPrefix(s, "-") {
		return s
	}
	if strings.HasPrefix(s, "-") {
		s = "./" + s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
