package interop_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

const (
	revoked  = sslstream.StatusRevoked
	unknown  = sslstream.StatusRevocationUnknown
	noAnswer = sslstream.StatusRevocationUnknown | sslstream.StatusOfflineRevocation
)

// opensslCA has OpenSSL answer OCSP requests and make CRLs for an authority of testpki's, by an index file as openssl ca keeps it.
type opensslCA struct {
	t       *testing.T
	openssl string
	dir     string
	ca      *testpki.Authority
	http    *httptest.Server
	answers []string // more arguments of openssl ocsp
	crl     []string // more lines of the CRL's section in openssl ca's configuration
	index   map[string]string
}

func newOpenSSLCA(t *testing.T) *opensslCA {
	o := &opensslCA{t: t, openssl: need(t, "openssl", installOpenSSL), dir: t.TempDir(), ca: testpki.Root(t, "OpenSSL CA"), index: map[string]string{}}
	cert, key := testpki.Files(t, o.ca.TLS())
	o.answers = []string{"-rsigner", cert, "-rkey", key, "-ndays", "1"}
	require.NoError(t, os.Rename(cert, o.file("ca.pem")))
	require.NoError(t, os.Rename(key, o.file("ca.key")))
	o.answers = []string{"-rsigner", o.file("ca.pem"), "-rkey", o.file("ca.key"), "-ndays", "1"}
	o.http = httptest.NewServer(o)
	t.Cleanup(o.http.Close)
	return o
}

func (o *opensslCA) file(name string) string { return filepath.Join(o.dir, name) }

// issue makes a certificate that names these services, and enters it into the index.
func (o *opensslCA) issue(opts ...testpki.Option) tls.Certificate {
	opts = append([]testpki.Option{testpki.OCSP(o.http.URL + "/ocsp"), testpki.CRL(o.http.URL + "/crl")}, opts...)
	c := o.ca.Issue(o.t, serverName, opts...)
	o.enter(c.Leaf, "V", "")
	return c
}

// enter makes or replaces a certificate's line in the index.
func (o *opensslCA) enter(c *x509.Certificate, status, revocation string) {
	serial := fmt.Sprintf("%X", c.SerialNumber)
	if len(serial)%2 == 1 {
		serial = "0" + serial
	}
	o.index[serial] = strings.Join([]string{status, c.NotAfter.UTC().Format("060102150405Z"), revocation, serial, "unknown", "/CN=" + serial}, "\t") + "\n"
	var all strings.Builder
	for _, line := range o.index {
		all.WriteString(line)
	}
	require.NoError(o.t, os.WriteFile(o.file("index"), []byte(all.String()), 0o600))
}

func (o *opensslCA) revoke(c *x509.Certificate, reason string) {
	o.enter(c, "R", time.Now().Add(-time.Minute).UTC().Format("060102150405Z")+","+reason)
}

func (o *opensslCA) run(args ...string) error {
	out, err := exec.Command(o.openssl, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("openssl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// respond is what openssl ocsp answers.
func (o *opensslCA) respond(request []byte) ([]byte, error) {
	dir, err := os.MkdirTemp(o.dir, "ocsp")
	if err != nil {
		return nil, err
	}
	in, out := filepath.Join(dir, "request"), filepath.Join(dir, "response")
	if err := os.WriteFile(in, request, 0o600); err != nil {
		return nil, err
	}
	if err := o.run(append([]string{"ocsp", "-index", o.file("index"), "-CA", o.file("ca.pem"), "-reqin", in, "-respout", out}, o.answers...)...); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// list is a CRL by openssl ca.
func (o *opensslCA) list() ([]byte, error) {
	config := strings.Join(append([]string{
		"[ca]", "default_ca = this", "[this]", "database = " + o.file("index"), "default_md = sha256", "crl_extensions = crl",
		"default_crl_days = 1", "[crl]", "authorityKeyIdentifier = keyid",
	}, o.crl...), "\n") + "\n"
	if err := os.WriteFile(o.file("ca.cnf"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	if err := o.run("ca", "-gencrl", "-config", o.file("ca.cnf"), "-keyfile", o.file("ca.key"), "-cert", o.file("ca.pem"), "-out", o.file("crl.pem")); err != nil {
		return nil, err
	}
	if err := o.run("crl", "-in", o.file("crl.pem"), "-outform", "DER", "-out", o.file("crl.der")); err != nil {
		return nil, err
	}
	return os.ReadFile(o.file("crl.der"))
}

func (o *opensslCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer []byte
	var err error
	if r.URL.Path == "/crl" {
		answer, err = o.list()
	} else {
		request, _ := io.ReadAll(r.Body)
		if escaped, ok := strings.CutPrefix(r.URL.EscapedPath(), "/ocsp/"); ok {
			escaped, _ = url.QueryUnescape(escaped)
			request, _ = base64.StdEncoding.DecodeString(escaped)
		}
		answer, err = o.respond(request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		o.t.Log(err)
		return
	}
	w.Write(answer)
}

// verdict is what ours says of a certificate.
func (o *opensslCA) verdict(mode sslstream.RevocationMode, c *x509.Certificate) (sslstream.ChainStatusFlags, *sslstream.Chain) {
	p := &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(o.ca), RevocationMode: mode}
	chain, err := p.Build(testContext(o.t), c)
	require.NoError(o.t, err)
	var all sslstream.ChainStatusFlags
	for _, s := range chain.Status {
		all |= s.Flag
	}
	return all, chain
}

// delegate makes a responder's certificate.
func (o *opensslCA) delegate(usage x509.ExtKeyUsage) []string {
	cert, key := testpki.Files(o.t, o.ca.Issue(o.t, "responder.example", testpki.EKU(usage)))
	return []string{"-rsigner", cert, "-rkey", key, "-ndays", "1"}
}

// TestRevocationByOpenSSL has openssl ocsp and openssl ca answer.
func TestRevocationByOpenSSL(t *testing.T) {
	t.Run("OCSP", func(t *testing.T) {
		o := newOpenSSLCA(t)
		for name, answers := range map[string][]string{
			"signed by the CA":     o.answers,
			"without its own":      append([]string{"-resp_no_certs"}, o.answers...),
			"named by key":         append([]string{"-resp_key_id"}, o.answers...),
			"signed by a delegate": o.delegate(x509.ExtKeyUsageOCSPSigning),
			"without an end":       o.answers[:4],
		} {
			t.Run(name, func(t *testing.T) {
				o.answers = answers
				good, bad, strange := o.issue(), o.issue(), o.ca.Issue(t, serverName, testpki.OCSP(o.http.URL+"/ocsp"))
				o.revoke(bad.Leaf, "keyCompromise")
				status, chain := o.verdict(sslstream.RevocationOnline, good.Leaf)
				assert.Zero(t, status, "%v", chain)
				status, chain = o.verdict(sslstream.RevocationOnline, bad.Leaf)
				assert.Equal(t, revoked, status)
				assert.Contains(t, chain.String(), "keyCompromise")
				status, chain = o.verdict(sslstream.RevocationOnline, strange.Leaf)
				assert.Equal(t, unknown, status, "%v", chain)
			})
		}
		t.Run("signed by who may not", func(t *testing.T) {
			o.answers = o.delegate(x509.ExtKeyUsageServerAuth)
			status, chain := o.verdict(sslstream.RevocationOnline, o.ca.Issue(t, serverName, testpki.OCSP(o.http.URL+"/ocsp")).Leaf)
			assert.Equal(t, noAnswer, status)
			assert.Contains(t, chain.String(), "not for signing OCSP responses")
		})
	})
	t.Run("CRL", func(t *testing.T) {
		for _, tc := range []struct {
			name string
			crl  []string
			want sslstream.ChainStatusFlags
		}{
			{"plain", nil, 0},
			{"for end certificates", []string{"issuingDistributionPoint = critical,onlyuser:true"}, 0},
			{"for CAs", []string{"issuingDistributionPoint = critical,onlyCA:true"}, noAnswer},
			{"for some reasons", []string{"issuingDistributionPoint = critical,onlysomereasons:keyCompromise"}, noAnswer},
			{"indirect", []string{"issuingDistributionPoint = critical,indirectCRL:true"}, noAnswer},
			{"of another place", []string{"issuingDistributionPoint = critical,@idp", "[idp]", "fullname = URI:http://elsewhere.example/"}, noAnswer},
		} {
			t.Run(tc.name, func(t *testing.T) {
				o := newOpenSSLCA(t)
				o.crl = tc.crl
				at := testpki.CRL(o.http.URL + "/crl")
				good, bad := o.issue(testpki.OCSP(), at), o.issue(testpki.OCSP(), at)
				o.revoke(bad.Leaf, "superseded")
				status, chain := o.verdict(sslstream.RevocationOnline, good.Leaf)
				assert.Equal(t, tc.want, status, "%v", chain)
				if tc.want == 0 {
					status, chain = o.verdict(sslstream.RevocationOnline, bad.Leaf)
					assert.Equal(t, revoked, status)
					assert.Contains(t, chain.String(), "superseded")
				}
			})
		}
	})
	t.Run("gone", func(t *testing.T) {
		o := newOpenSSLCA(t)
		before, after := o.issue(), o.issue(testpki.OCSP(o.http.URL+"/ocsp"), testpki.CRL())
		status, _ := o.verdict(sslstream.RevocationOnline, before.Leaf)
		require.Zero(t, status)
		o.http.Close()
		status, chain := o.verdict(sslstream.RevocationOnline, after.Leaf)
		assert.Equal(t, noAnswer, status, "%v", chain)
		status, _ = o.verdict(sslstream.RevocationOffline, before.Leaf)
		assert.Zero(t, status, "it is remembered")
	})
}

// TestRevocationByCFSSL has cfssl make the certificates and the answers.
func TestRevocationByCFSSL(t *testing.T) {
	dir := t.TempDir()
	install := exec.Command("go", "install", "github.com/cloudflare/cfssl/cmd/cfssl@v1.6.5")
	install.Dir, install.Env = dir, append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
	if os.Getenv("INTEROP") != "all" {
		t.Skip("cfssl is built from the module registry only with INTEROP=all")
	}
	out, err := install.CombinedOutput()
	require.NoError(t, err, "%s", out)
	cfssl := func(args ...string) []byte {
		cmd := exec.Command(filepath.Join(dir, "cfssl"), slices.Insert(args, 1, "-loglevel=5")...)
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, "%v: %s", args, stderr.String())
		return out
	}
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	made := func(name string, out []byte) *x509.Certificate {
		var m struct{ Cert, Key string }
		require.NoError(t, json.Unmarshal(out, &m))
		write(name+".pem", m.Cert)
		write(name+".key", m.Key)
		block, _ := pem.Decode([]byte(m.Cert))
		require.NotNil(t, block)
		c, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		return c
	}
	var crl []byte
	status := map[string]string{} // by what the request asks
	services := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/crl" {
			w.Write(crl)
			return
		}
		name := strings.Split(r.URL.Path, "/")[1]
		var signed struct{ OCSPResponse string }
		args := []string{"ocspsign", "-ca", "ca.pem", "-responder", "responder.pem", "-responder-key", "responder.key", "-cert", name + ".pem", "-status", status[name]}
		if status[name] == "revoked" {
			args = append(args, "-reason", "1", "-revoked-at", "now")
		}
		if err := json.Unmarshal(cfssl(args...), &signed); err != nil {
			t.Error(err)
		}
		der, _ := base64.StdEncoding.DecodeString(signed.OCSPResponse)
		w.Write(der)
	}))
	defer services.Close()
	const key = `"key": {"algo": "ecdsa", "size": 256}`
	write("ca.json", `{"CN": "cfssl CA", `+key+`}`)
	write("leaf.json", `{"CN": "leaf", "hosts": ["`+serverName+`"], `+key+`}`)
	ca := made("ca", cfssl("gencert", "-initca", "ca.json"))
	issue := func(name, usages, urls string) *x509.Certificate {
		write("config.json", `{"signing": {"default": {"expiry": "24h", "usages": [`+usages+`]`+urls+`}}}`)
		return made(name, cfssl("gencert", "-ca", "ca.pem", "-ca-key", "ca.key", "-config", "config.json", "leaf.json"))
	}
	issue("responder", `"digital signature", "ocsp signing"`, "")
	p := &sslstream.ChainPolicy{CustomTrustStore: x509.NewCertPool(), RevocationMode: sslstream.RevocationOnline}
	p.CustomTrustStore.AddCert(ca)
	verdict := func(c *x509.Certificate) (sslstream.ChainStatusFlags, *sslstream.Chain) {
		chain, err := p.Build(testContext(t), c)
		require.NoError(t, err)
		var all sslstream.ChainStatusFlags
		for _, s := range chain.Status {
			all |= s.Flag
		}
		return all, chain
	}
	for name, want := range map[string]sslstream.ChainStatusFlags{"good": 0, "revoked": revoked} {
		status[name] = name
		leaf := issue(name, `"server auth", "digital signature"`, `, "ocsp_url": "`+services.URL+"/"+name+`"`)
		got, chain := verdict(leaf)
		assert.Equal(t, want, got, "%v", chain)
	}
	listed := issue("listed", `"server auth", "digital signature"`, `, "crl_url": "`+services.URL+`/crl"`)
	other := issue("other", `"server auth", "digital signature"`, `, "crl_url": "`+services.URL+`/crl"`)
	write("serials", listed.SerialNumber.String()+"\n")
	crl, err = base64.StdEncoding.DecodeString(strings.TrimSpace(string(cfssl("gencrl", "serials", "ca.pem", "ca.key"))))
	require.NoError(t, err)
	got, chain := verdict(listed)
	assert.Equal(t, revoked, got, "%v", chain)
	got, chain = verdict(other)
	assert.Zero(t, got, "%v", chain)
}
