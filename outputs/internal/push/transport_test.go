package push

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sockwatch/outputs/internal/push/pushtest"
)

// A keyPair is a certificate with its key; self-signed if it is a CA.
type keyPair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue creates a certificate for 127.0.0.1, modified by change and signed by ca, or by
// itself if ca is nil.
func issue(t testing.TB, ca *keyPair, change func(c *x509.Certificate)) keyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"server.example"}, BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	pair := keyPair{key: key}
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if pair.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return pair
}

func newCA(t testing.TB) *keyPair {
	ca := issue(t, nil, func(c *x509.Certificate) { c.IsCA = true })
	return &ca
}

func (p keyPair) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}
}

func (p keyPair) certPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
}

func (p keyPair) keyPEM(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// A tlsServer answers 204 over TLS with a certificate that may change.
type tlsServer struct {
	*httptest.Server
	cert atomic.Pointer[tls.Certificate]
}

func newTLSServer(t testing.TB, cert *tls.Certificate, clients *x509.CertPool) *tlsServer {
	t.Helper()
	s := &tlsServer{}
	s.cert.Store(cert)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.SetKeepAlivesEnabled(false) // every connection gets the current certificate
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := &tls.Config{Certificates: []tls.Certificate{*s.cert.Load()}}
		if clients != nil {
			c.ClientCAs, c.ClientAuth = clients, tls.RequireAndVerifyClientCert
		}
		return c, nil
	}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// overTLS returns options for a server whose certificate is for server.example,
// verified by the CA in a file.
func overTLS(url, caFile string) options {
	o := to(url)
	o.TLSCA, o.TLSServerName = caFile, "server.example"
	return o
}

// TestInvalidCertificatesAreRefused with the reason.
func TestInvalidCertificatesAreRefused(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	write(t, caFile, ca.certPEM())
	for _, tt := range []struct {
		name   string
		cert   keyPair
		change func(o *options)
		want   string // the whole error after the server's name, without times
	}{
		{name: "good", cert: issue(t, ca, nil), change: nil, want: ""},
		{name: "expired", cert: issue(t, ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), change: nil,
			want: "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: "},
		{name: "self-signed", cert: issue(t, nil, nil), change: nil, want: "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{name: "unknown CA", cert: issue(t, other, nil), change: nil, want: "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{name: "wrong host", cert: issue(t, ca, func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }), change: nil,
			want: "tls: failed to verify certificate: x509: certificate is valid for other.example, not server.example"},
		{name: "the URL's host", cert: issue(t, ca, nil), change: func(o *options) { o.TLSServerName = "" },
			want: "tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"},
		{name: "the system's CAs", cert: issue(t, ca, nil), change: func(o *options) { o.TLSCA = "" },
			want: "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{name: "any, as the options say", cert: issue(t, nil, nil), change: func(o *options) { o.InsecureSkipVerify = true }, want: ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newTLSServer(t, tt.cert.tls(), nil)
			o := overTLS(server.URL, caFile)
			if tt.change != nil {
				tt.change(&o)
			}
			out, _ := newOutput(t, o)
			for range 2 { // never skipped silently, not even the second time
				err := send(t, out, "m v=1i 1")
				if tt.want == "" {
					if err != nil {
						t.Errorf("error %v", err)
					}
				} else if !strings.HasPrefix(fmt.Sprint(err), server.URL+": "+tt.want) || pushtest.Kind(err) != "kept" {
					t.Errorf("%s: error\n%v, want\n%s: %s", pushtest.Kind(err), err, server.URL, tt.want)
				}
			}
		})
	}
}

// TestConnectionErrorsSayWhatToDo, if an option is wrong.
func TestConnectionErrorsSayWhatToDo(t *testing.T) {
	ca := newCA(t)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	write(t, caFile, ca.certPEM())
	secure, plain := newTLSServer(t, issue(t, ca, nil).tls(), nil), pushtest.NewServer(t)
	foreign := newTLSServer(t, issue(t, newCA(t), nil).tls(), nil)
	expired := newTLSServer(t, issue(t, ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).tls(), nil)
	for _, tt := range []struct {
		name   string
		url    string
		change func(o *options)
		want   string // end of the error
	}{
		{name: "https without the CA", url: secure.URL, change: func(o *options) { o.TLSCA = "" }, want: "certificate signed by unknown authority: set tls_ca"},
		{name: "https with another CA", url: foreign.URL, want: ": check tls_ca"},
		{name: "https with an expired certificate", url: expired.URL, want: ": renew the server's certificate, or set this host's clock"},
		{name: "https with another name", url: secure.URL, change: func(o *options) { o.TLSServerName = "other.example" },
			want: "certificate is valid for server.example, not other.example: set tls_server_name, or check urls"},
		{name: "https to a server for http", url: strings.Replace(plain.URL, "http:", "https:", 1),
			want: "http: server gave HTTP response to HTTPS client: write http:// in urls"},
		{name: "http to a server for https", url: strings.Replace(secure.URL, "https:", "http:", 1),
			want: "400 Bad Request: Client sent an HTTP request to an HTTPS server.: write https:// in urls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := overTLS(tt.url, caFile)
			if tt.change != nil {
				tt.change(&o)
			}
			out, _ := newOutput(t, o)
			if err := send(t, out, "1"); pushtest.Kind(err) != "kept" || !strings.HasSuffix(fmt.Sprint(err), tt.want) {
				t.Errorf("%s: error\n%v, want\n... %s", pushtest.Kind(err), err, tt.want)
			}
		})
	}
}

// TestReplacedCertificatesAreUsed replaces the server's certificate and the CA file.
func TestReplacedCertificatesAreUsed(t *testing.T) {
	first, second := newCA(t), newCA(t)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	write(t, caFile, first.certPEM())
	server := newTLSServer(t, issue(t, first, nil).tls(), nil)
	out, _ := newOutput(t, overTLS(server.URL, caFile))
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Fatal(err)
	}
	server.cert.Store(issue(t, second, nil).tls())
	err := send(t, out, "m v=1i 1")
	if want := server.URL + ": tls: failed to verify certificate: x509: certificate signed by unknown authority"; !strings.HasPrefix(fmt.Sprint(err), want) {
		t.Fatalf("error\n%v, want\n%s", err, want)
	}
	write(t, caFile, "half written")
	if err, want := send(t, out, "m v=1i 1"), fmt.Sprintf("tls_ca: %q contains no PEM certificate", caFile); fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
	write(t, caFile, second.certPEM())
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Errorf("after the CA's file was replaced: %v", err)
	}
}

// TestPointsWaitForTheClientCertificate: the server requires one. Points stay queued without
// it, and with one that the server does not know.
func TestPointsWaitForTheClientCertificate(t *testing.T) {
	ca, clients := newCA(t), newCA(t)
	pool := x509.NewCertPool()
	pool.AddCert(clients.cert)
	server := newTLSServer(t, issue(t, ca, nil).tls(), pool)
	dir := t.TempDir()
	caFile, certFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, caFile, ca.certPEM())

	out, _ := newOutput(t, overTLS(server.URL, caFile))
	// net/http may put its own words before it.
	if err, want := send(t, out, "m v=1i 1"), "remote error: tls: certificate required: set tls_cert and tls_key"; !strings.HasSuffix(fmt.Sprint(err), want) || pushtest.Kind(err) != "kept" {
		t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}

	foreign, known := issue(t, ca, nil), issue(t, clients, nil)
	write(t, certFile, foreign.certPEM())
	write(t, keyFile, foreign.keyPEM(t))
	o := overTLS(server.URL, caFile)
	o.TLSCert, o.TLSKey = certFile, keyFile
	out, _ = newOutput(t, o)
	if err := send(t, out, "m v=1i 1"); pushtest.Kind(err) != "kept" || !strings.HasSuffix(fmt.Sprint(err), ": check tls_cert") {
		t.Errorf("an unknown certificate: %s: %v", pushtest.Kind(err), err)
	}
	write(t, certFile, known.certPEM())
	if err, want := send(t, out, "m v=1i 1"), fmt.Sprintf("tls_cert: %q: tls: private key does not match public key", certFile); fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("between two files: %s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
	write(t, keyFile, known.keyPEM(t))
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Errorf("after the certificate was replaced: %v", err)
	}
}

// TestMissingCertificatesKeepThePoints has options with files that do not exist.
func TestMissingCertificatesKeepThePoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing.pem")
	out, _ := newOutput(t, overTLS("https://127.0.0.1:1", path))
	if err, want := send(t, out, "m v=1i 1"), "tls_ca: open "+path+": no such file or directory"; fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("error %v, want %s", err, want)
	}
}
