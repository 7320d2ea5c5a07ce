// Package ukitest makes what tests build unified kernel images of.
package ukitest

import "encoding/binary"

// Stub returns a small PE32+ file with one section and little room behind the section table.
func Stub() []byte {
	b := make([]byte, 1024)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[60:], 64)
	copy(b[64:], "PE\x00\x00")
	c := b[68:]
	le.PutUint16(c, 0x8664)
	le.PutUint16(c[2:], 1)
	le.PutUint32(c[8:], 0x1234) // a symbol table that must go
	le.PutUint16(c[16:], 240)
	o := c[20:]
	le.PutUint16(o, 0x20b)
	le.PutUint32(o[32:], 512)
	le.PutUint32(o[36:], 512)
	le.PutUint32(o[56:], 0x3000)
	le.PutUint32(o[60:], 512)
	le.PutUint32(o[64:], 99)
	le.PutUint32(o[108:], 16)
	s := o[240:]
	copy(s, ".text")
	le.PutUint32(s[8:], 100)
	le.PutUint32(s[12:], 0x2000)
	le.PutUint32(s[16:], 512)
	le.PutUint32(s[20:], 512)
	copy(b[512:], "stub code")
	return b
}
