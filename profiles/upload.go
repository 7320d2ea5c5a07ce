package profiles

import (
	"regexp"
	"strings"
	"text/template"
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
	t, err := template.New(p.Name).Option("missingkey=error").Parse(p.Upload)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return nil, err
	}
	text := strings.TrimSpace(b.String())
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

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
