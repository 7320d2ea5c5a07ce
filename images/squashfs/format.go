package squashfs

// What lies in an image, in the words of Linux fs/squashfs/squashfs_fs.h. All
// numbers are little-endian, and no structure is padded.

const (
	magic       = 0x73717368 // "hsqs"
	compression = 6          // ZSTD_COMPRESSION

	// blockSize of data blocks is the format's limit: larger blocks compress better.
	// Reading one page decompresses a whole block, which then is in the page cache.
	blockLog  = 20
	blockSize = 1 << blockLog

	// fragmentSize is how much of small files and of ends of files a fragment block
	// has. The kernel keeps few of these blocks, and unpacks one for a small file.
	fragmentSize = 1 << 18

	metadataSize = 8192 // uncompressed, of every metadata block but a table's last

	// Set in a block's length if it is stored as it is, because compressing did not make it smaller.
	uncompressedMetadata = 1 << 15
	uncompressedData     = 1 << 24

	invalidTable    = 1<<64 - 1 // where a table begins that is left out
	invalidFragment = 1<<32 - 1
	invalidXattr    = 1<<32 - 1

	maxDirCount = 256 // entries below one directory header
	maxIndex    = 1<<16 - 1
	maxIDs      = 1<<16 - 1

	// maxName is the VFS's NAME_MAX. The format has room for one byte more, but nobody could open the file.
	maxName = 255
	// maxTarget is PATH_MAX without its NUL: a longer link cannot be followed, and the kernel calls it corrupt.
	maxTarget = 4095
)

// Flags of the superblock.
const (
	flagDuplicates = 1 << 6 // identical files are stored once
	flagNoXattrs   = 1 << 9
)

// Types of inodes. Those of directory entries are the first seven.
const (
	typeDir      = 1
	typeFile     = 2
	typeSymlink  = 3
	typeBlockDev = 4
	typeCharDev  = 5
	typeFifo     = 6
	// extended inodes have what the others leave out: extended attributes, a
	// file's link count and 64-bit sizes, a directory's index.
	extended = 7
)

type superblock struct {
	Magic               uint32
	Inodes              uint32
	MkfsTime            uint32
	BlockSize           uint32
	Fragments           uint32
	Compression         uint16
	BlockLog            uint16
	Flags               uint16
	IDs                 uint16
	Major, Minor        uint16
	RootInode           uint64 // a reference
	BytesUsed           uint64 // without the padding
	IDTableStart        uint64
	XattrIDTableStart   uint64
	InodeTableStart     uint64
	DirectoryTableStart uint64
	FragmentTableStart  uint64
	LookupTableStart    uint64 // of inode numbers, for NFS
}

// superblockSize is where the first data block lies. Compressor options could
// come between; zstd's are only the level, which no reader needs.
const superblockSize = 96

type baseInode struct {
	Type     uint16
	Mode     uint16 // permissions only
	UID, GID uint16 // indexes into the id table
	Mtime    uint32
	Number   uint32
}

type dirInode struct {
	baseInode
	StartBlock uint32 // of the listing, in the directory table
	Links      uint32
	FileSize   uint16 // of the listing, and 3 for "." and "..", which are not stored
	Offset     uint16
	Parent     uint32 // inode number
}

type extendedDirInode struct {
	baseInode
	Links      uint32
	FileSize   uint32
	StartBlock uint32
	Parent     uint32
	Indexes    uint16
	Offset     uint16
	Xattr      uint32
}

type dirIndex struct {
	Index      uint32 // of the header, in the uncompressed listing
	StartBlock uint32 // of the header, in the directory table
	NameSize   uint32 // less 1
}

type dirHeader struct {
	Count       uint32 // less 1
	StartBlock  uint32 // of all the entries' inodes, in the inode table
	InodeNumber uint32
}

type dirEntry struct {
	Offset      uint16
	InodeNumber int16 // less the header's
	Type        uint16
	NameSize    uint16 // less 1
}

type fileInode struct {
	baseInode
	StartBlock uint32
	Fragment   uint32
	Offset     uint32 // in the fragment
	FileSize   uint32
}

type extendedFileInode struct {
	baseInode
	StartBlock uint64
	FileSize   uint64
	Sparse     uint64 // bytes that take no space
	Links      uint32
	Fragment   uint32
	Offset     uint32
	Xattr      uint32
}

type symlinkInode struct {
	baseInode
	Links      uint32
	TargetSize uint32
}

type deviceInode struct {
	baseInode
	Links  uint32
	Device uint32
}

type fifoInode struct {
	baseInode
	Links uint32
}

type fragmentEntry struct {
	StartBlock uint64
	Size       uint32
	_          uint32
}

type xattrEntry struct {
	Type     uint16 // the name's prefix
	NameSize uint16
}

type xattrID struct {
	Xattr uint64 // a reference into the extended attributes
	Count uint32
	Size  uint32
}

type xattrIDTable struct {
	TableStart uint64
	IDs        uint32
	_          uint32
}
