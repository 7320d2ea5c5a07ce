package format

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"io"
	"os"
	"strings"
)

//go:embed machine.ovf
var ovf string

// ovfRoom is what the description takes in the archive: it comes first and says how
// large the disk's file is, which is known last. Blank lines fill it.
const ovfRoom = 8192

// writeOVA writes a tar archive (DSP0243, "Open Virtualization Format") of the
// machine's description, its disk and the digests of both.
func writeOVA(ctx context.Context, dst, src *os.File, size int64, o Options) error {
	vmdkName, ovfName := o.Name+"-disk1.vmdk", o.Name+".ovf"
	const vmdkAt = sector + ovfRoom + sector
	if _, err := dst.Seek(vmdkAt, io.SeekStart); err != nil {
		return err
	}
	sum, count := sha256.New(), &counter{}
	buffered := bufio.NewWriterSize(dst, mib)
	stored, err := streamVMDK(ctx, io.MultiWriter(buffered, sum, count), src, size, o)
	if err != nil {
		return err
	}
	description, err := describeMachine(o.Name, vmdkName, count.n, divUp(size, unitSize)*unitSize, stored)
	if err != nil {
		return err
	}
	manifest := fmt.Sprintf("SHA256(%s)= %x\nSHA256(%s)= %x\n", ovfName, sha256.Sum256(description), vmdkName, sum.Sum(nil))
	// A VMDK has whole sectors, so the archive goes on right behind it.
	end := tar.NewWriter(buffered)
	if err := end.WriteHeader(o.tarHeader(o.Name+".mf", int64(len(manifest)))); err != nil {
		return err
	}
	if _, err := io.WriteString(end, manifest); err != nil {
		return err
	}
	if err := end.Close(); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	var front bytes.Buffer
	w := tar.NewWriter(&front)
	if err := w.WriteHeader(o.tarHeader(ovfName, ovfRoom)); err != nil {
		return err
	}
	if _, err := w.Write(description); err != nil {
		return err
	}
	if err := w.WriteHeader(o.tarHeader(vmdkName, count.n)); err != nil {
		return err
	}
	if front.Len() != vmdkAt {
		return fmt.Errorf("the name %q is too long for an OVA", o.Name)
	}
	_, err = dst.WriteAt(front.Bytes(), 0)
	return err
}

// tarHeader is one block: of the plain format that OVF asks for, where it can say
// the size.
func (o Options) tarHeader(name string, size int64) *tar.Header {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: o.time(), Format: tar.FormatUSTAR}
	if size >= 8*gib {
		h.Format = tar.FormatGNU
	}
	return h
}

// describeMachine fills the description in, to ovfRoom bytes.
func describeMachine(name, file string, fileSize, capacity, stored int64) ([]byte, error) {
	// Not text/template, see profiles.Profile.Commands.
	s := strings.NewReplacer("{{.Name}}", name, "{{.File}}", file, "{{.FileSize}}", fmt.Sprint(fileSize),
		"{{.Capacity}}", fmt.Sprint(capacity), "{{.Stored}}", fmt.Sprint(stored)).Replace(ovf)
	if len(s) > ovfRoom {
		return nil, fmt.Errorf("the machine's description has %d bytes, more than %d", len(s), ovfRoom)
	}
	return []byte(s + strings.Repeat("\n", ovfRoom-len(s))), nil
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }
