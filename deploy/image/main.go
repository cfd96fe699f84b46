// Command image writes the container image of sockwatch as a tar file of an OCI image layout,
// with one index for all architectures. It needs no daemon. The same files and flags give the
// same bytes.
//
//	image -out FILE -version VERSION -epoch SECONDS -files DIR ARCH...
//
// package.sh prepares DIR: bin/ARCH/sockwatch, LICENSE and third-party.gz.
package main

import (
	"archive/tar"
	"bytes"
	_ "embed"
	"encoding/binary"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("image: ")
	out := flag.String("out", "", "the `FILE` to write")
	version := flag.String("version", "", "the version of the program")
	epoch := flag.Int64("epoch", 0, "the time of everything, in `SECONDS` since 1970")
	files := flag.String("files", "", "the `DIR` with the files")
	flag.Parse()
	b := builder{files: *files, version: *version, time: time.Unix(*epoch, 0).UTC()}
	if err := b.write(*out, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

// A builder builds images.
type builder struct {
	files   string
	version string
	time    time.Time // of everything
}

// write writes the image of the architectures to a file.
func (b *builder) write(out string, architectures []string) error {
	base, err := b.base()
	if err != nil {
		return err
	}
	images := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range architectures {
		image, err := b.image(arch, base)
		if err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
		images = mutate.AppendManifests(images, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	annotated, ok := mutate.Annotations(images, b.labels()).(v1.ImageIndex)
	if !ok {
		return fmt.Errorf("an index with annotations is a %T", annotated)
	}
	dir, err := os.MkdirTemp("", "sockwatch-oci-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := l.AppendIndex(annotated, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": b.version})); err != nil {
		return err
	}
	return b.tarFile(out, dir)
}

// image returns the image of one architecture: the common layer and the program.
func (b *builder) image(arch string, base v1.Layer) (v1.Image, error) {
	program, err := os.ReadFile(filepath.Join(b.files, "bin", arch, "sockwatch"))
	if err != nil {
		return nil, err
	}
	top, err := b.layer([]entry{{name: "usr/bin/sockwatch", mode: 0o755, content: program, capabilities: true}})
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: arch, OS: "linux", Created: v1.Time{Time: b.time}, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint:   []string{"/usr/bin/sockwatch"},
			Cmd:          []string{"run"},
			User:         fmt.Sprintf("%d:%d", user, user),
			Env:          []string{"PATH=/usr/bin"},
			ExposedPorts: map[string]struct{}{"8088/tcp": {}},
			Labels:       b.labels(),
		},
	})
	if err != nil {
		return nil, err
	}
	image, err = mutate.Append(image,
		mutate.Addendum{Layer: base, History: b.history("configuration, certificates and licenses")},
		mutate.Addendum{Layer: top, History: b.history("sockwatch " + b.version)})
	if err != nil {
		return nil, err
	}
	annotated, ok := mutate.Annotations(image, b.labels()).(v1.Image)
	if !ok {
		return nil, fmt.Errorf("an image with annotations is a %T", annotated)
	}
	return annotated, nil
}

func (b *builder) history(what string) v1.History {
	return v1.History{Created: v1.Time{Time: b.time}, CreatedBy: "deploy/image: " + what}
}

// labels are those of https://specs.opencontainers.org/image-spec/annotations.
func (b *builder) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "sockwatch",
		"org.opencontainers.image.description": "Finds every listening TCP socket of a host and who owns it.",
		"org.opencontainers.image.version":     b.version,
		"org.opencontainers.image.created":     b.time.Format(time.RFC3339),
		"org.opencontainers.image.licenses":    "MIT",
		"org.opencontainers.image.vendor":      "The sockwatch authors",
	}
}

// user is the user and group of the program unless the container sets another.
const user = 65532

//go:embed sockwatch.toml
var configuration []byte

// base returns the layer that all architectures share.
func (b *builder) base() (v1.Layer, error) {
	entries := []entry{
		{name: "etc/group", content: fmt.Appendf(nil, "root:x:0:\nsockwatch:x:%d:\n", user)},
		{name: "etc/passwd", content: fmt.Appendf(nil, "root:x:0:0:root:/:/sbin/nologin\nsockwatch:x:%d:%[1]d:sockwatch:/:/sbin/nologin\n", user)},
		{name: "etc/sockwatch/sockwatch.d/"},
		{name: "etc/sockwatch/sockwatch.toml", content: configuration},
		{name: "etc/ssl/certs/ca-certificates.crt", content: certificates()},
		{name: "var/lib/sockwatch/", mode: 0o700, owner: user},
		{name: "var/log/sockwatch/", mode: 0o750, owner: user},
	}
	for _, file := range []string{"LICENSE", "third-party.gz"} {
		text, err := os.ReadFile(filepath.Join(b.files, file))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name: "usr/share/licenses/sockwatch/" + file, content: text})
	}
	return b.layer(entries)
}

// certificates returns Mozilla's CA certificates as PEM. It omits those that Mozilla trusts
// only with a constraint, because PEM cannot express it.
func certificates() []byte {
	var text []byte
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})...)
		}
	}
	return text
}

// An entry is a file of a layer, or a folder if its name ends in a slash.
type entry struct {
	name         string
	mode         int64 // 0: 0644, of a folder 0755
	owner        int   // user and group
	content      []byte
	capabilities bool // those of permitted
}

// layer returns a layer with the entries and their parent folders.
func (b *builder) layer(entries []entry) (v1.Layer, error) {
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	made := map[string]bool{}
	var add func(e entry) error
	add = func(e entry) error {
		if made[e.name] {
			return nil
		}
		made[e.name] = true
		if i := strings.LastIndex(strings.TrimSuffix(e.name, "/"), "/"); i > 0 {
			if err := add(entry{name: e.name[:i+1]}); err != nil {
				return err
			}
		}
		header := b.header(e.name, int64(len(e.content)))
		header.Uid, header.Gid = e.owner, e.owner
		if e.mode != 0 {
			header.Mode = e.mode
		}
		if e.capabilities {
			header.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": permitted()}
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err := w.Write(e.content)
		return err
	}
	for _, e := range entries {
		if err := add(e); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

// header returns the header of a file, or of a folder if its name ends in a slash.
func (b *builder) header(name string, size int64) *tar.Header {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: b.time, Format: tar.FormatPAX}
	if strings.HasSuffix(name, "/") {
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
	}
	return h
}

// permitted returns the extended attribute of a file that has the two capabilities for owners and
// the two for BPF as permitted ones: struct vfs_cap_data, revision 2, from linux/capability.h. A
// container gets those of them that it is granted. With the effective bit, exec would fail
// without all of them. So the program raises them itself.
func permitted() string {
	const (
		revision2     = 0x02000000
		dacReadSearch = 1 << 2
		sysPtrace     = 1 << 19
		perfmon       = 1 << (38 - 32) // in the upper word
		bpf           = 1 << (39 - 32)
		inheritable   = 0
	)
	var attribute []byte
	for _, word := range []uint32{revision2, dacReadSearch | sysPtrace, inheritable, perfmon | bpf, inheritable} {
		attribute = binary.LittleEndian.AppendUint32(attribute, word)
	}
	return string(attribute)
}

// tarFile writes the files of a folder to a tar file, ordered by name.
func (b *builder) tarFile(out, dir string) (err error) {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return w.WriteHeader(b.header(name+"/", 0))
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(b.header(name, int64(len(text)))); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
	if err != nil {
		return err
	}
	return w.Close()
}
