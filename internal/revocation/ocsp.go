package revocation

import (
	"bytes"
	"context"
	"crypto"
	"crypto/fips140"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/crypto/ocsp"

	"github.com/sslstream/sslstream/internal/fetch"
)

const (
	maxOCSP = 1 << 20 // bytes of a response
	// maxGET is how long the path of a GET may become (RFC 6960, Appendix A.1); longer requests are posted.
	maxGET = 255
)

// parseOCSP makes an answer of a DER response that is signed by whom it must be. x/crypto/ocsp parses it; what
// else makes it count is checked here. Whether it counts now is left to who asks.
func parseOCSP(der []byte, cert, issuer *x509.Certificate) (*Answer, error) {
	// Without an issuer, or the parser would take a delegate's certificate for one that may sign, whatever it is for.
	response, err := ocsp.ParseResponseForCert(der, cert, nil)
	if err != nil {
		return nil, fmt.Errorf("is no usable OCSP response: %s", shortened(err.Error()))
	}
	if err := checkResponseData(response.TBSResponseData, cert, issuer); err != nil {
		return nil, err
	}
	signer, err := responder(response, issuer)
	if err != nil {
		return nil, err
	}
	a := &Answer{From: response.ThisUpdate.Add(-clockSkew), Until: response.NextUpdate, Raw: bytes.Clone(der)}
	if a.Until.IsZero() {
		a.Until = response.ThisUpdate.Add(openEnded)
	}
	if a.Until.Before(response.ThisUpdate) {
		return nil, errors.New("runs out before it begins")
	}
	if signer != issuer { // an answer counts no longer than its responder's certificate
		if signer.NotBefore.After(a.From) {
			a.From = signer.NotBefore
		}
		if signer.NotAfter.Before(a.Until) {
			a.Until = signer.NotAfter
		}
	}
	switch response.Status {
	case ocsp.Good:
		a.Status = Good
	case ocsp.Revoked:
		a.Status, a.RevokedAt, a.Reason = Revoked, response.RevokedAt, response.RevocationReason
	case ocsp.Unknown:
		a.Status = Unknown
	default:
		return nil, fmt.Errorf("has the unknown status %d", response.Status)
	}
	return a, nil
}

// responder is who signed the response: the issuer itself, or who has a certificate from it for that (RFC 6960, Section
// 4.2.2.2).
func responder(response *ocsp.Response, issuer *x509.Certificate) (*x509.Certificate, error) {
	signer := response.Certificate
	if signer == nil || bytes.Equal(signer.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo) && bytes.Equal(signer.RawSubject, issuer.RawSubject) {
		signer = issuer
	}
	if err := strong(response.SignatureAlgorithm); err != nil {
		return nil, err
	}
	if err := response.CheckSignatureFrom(signer); err != nil {
		return nil, fmt.Errorf("is not signed by the certificate's issuer or its delegate: %w", err)
	}
	if err := isResponder(response, signer); err != nil {
		return nil, err
	}
	if signer == issuer {
		return signer, nil
	}
	name := shortened(signer.Subject.String())
	switch {
	case !bytes.Equal(signer.RawIssuer, issuer.RawSubject):
		return nil, fmt.Errorf("is signed by %s, which is no delegate of the certificate's issuer", name)
	case !slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return nil, fmt.Errorf("is signed by %s, whose certificate is not for signing OCSP responses", name)
	case signer.KeyUsage != 0 && signer.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, fmt.Errorf("is signed by %s, whose key usage does not allow it", name)
	case len(signer.UnhandledCriticalExtensions) > 0:
		return nil, fmt.Errorf("is signed by %s, whose certificate has a critical extension that is not understood", name)
	}
	if err := strong(signer.SignatureAlgorithm); err != nil {
		return nil, fmt.Errorf("is signed by %s, whose certificate %w", name, err)
	}
	if err := issuer.CheckSignature(signer.SignatureAlgorithm, signer.RawTBSCertificate, signer.Signature); err != nil {
		return nil, fmt.Errorf("is signed by %s, whose certificate is not signed by the certificate's issuer: %w", name, err)
	}
	return signer, nil
}

// strong refuses signatures that crypto/x509 refuses in certificates, but not elsewhere.
func strong(algorithm x509.SignatureAlgorithm) error {
	switch algorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return fmt.Errorf("is signed too weakly: %w", x509.InsecureAlgorithmError(algorithm))
	}
	return nil
}

// isResponder checks that the signer is who the response says.
func isResponder(response *ocsp.Response, signer *x509.Certificate) error {
	if len(response.RawResponderName) > 0 {
		if bytes.Equal(response.RawResponderName, signer.RawSubject) {
			return nil
		}
	} else if hash, err := hashOf(crypto.SHA1, publicKey(signer)); err == nil && bytes.Equal(response.ResponderKeyHash, hash) {
		return nil
	}
	return errors.New("is signed by another responder than it says")
}

// publicKey is the bits of a certificate's key, as CertID and ResponderID hash them.
func publicKey(c *x509.Certificate) []byte {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		return nil
	}
	return info.PublicKey.RightAlign()
}

// hashOf hashes what names somebody. SHA-1 does here also where FIPS 140-3 mode is enforced: nothing rests on it but which name
// is meant.
func hashOf(h crypto.Hash, data []byte) (sum []byte, err error) {
	if !h.Available() {
		return nil, x509.ErrUnsupportedAlgorithm
	}
	fips140.WithoutEnforcement(func() {
		hash := h.New()
		hash.Write(data)
		sum = hash.Sum(nil)
	})
	return sum, nil
}

// responseData is the part of RFC 6960's ResponseData that x/crypto/ocsp keeps to itself.
type responseData struct {
	Version     int           `asn1:"optional,default:0,explicit,tag:0"`
	ResponderID asn1.RawValue // a choice
	ProducedAt  asn1.RawValue
	Responses   []struct {
		ID   certID
		Rest asn1.RawValue // the status
	}
	Extensions []pkix.Extension `asn1:"optional,explicit,tag:1"`
}

type certID struct {
	Hash         pkix.AlgorithmIdentifier
	IssuerName   []byte
	IssuerKey    []byte
	SerialNumber asn1.RawValue
}

// hashes are those that a CertID may be made with.
var hashes = []struct {
	id   asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, crypto.SHA1},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

// checkResponseData checks that the response is about this issuer's certificate: the parser has looked at the
// serial number only, and took the first that fits. Another issuer's of the same number makes it ambiguous.
func checkResponseData(tbs []byte, cert, issuer *x509.Certificate) error {
	var data responseData
	if rest, err := asn1.Unmarshal(tbs, &data); err != nil || len(rest) > 0 {
		return errors.New("is no usable OCSP response: its data does not parse")
	}
	for _, e := range data.Extensions {
		if e.Critical {
			return fmt.Errorf("has the critical extension %v, which is not understood", e.Id)
		}
	}
	serial, err := asn1.Marshal(cert.SerialNumber)
	if err != nil {
		return err
	}
	found := 0
	for _, r := range data.Responses {
		if !bytes.Equal(r.ID.SerialNumber.FullBytes, serial) {
			continue
		}
		found++
		if err := r.ID.checkIssuer(issuer); err != nil {
			return err
		}
	}
	if found != 1 {
		return fmt.Errorf("is about the certificate %d times, not once", found)
	}
	return nil
}

func (id *certID) checkIssuer(issuer *x509.Certificate) error {
	for _, h := range hashes {
		if !id.Hash.Algorithm.Equal(h.id) {
			continue
		}
		name, err := hashOf(h.hash, issuer.RawSubject)
		if err != nil {
			return err
		}
		keyHash, err := hashOf(h.hash, publicKey(issuer))
		if err != nil {
			return err
		}
		if !bytes.Equal(id.IssuerName, name) || !bytes.Equal(id.IssuerKey, keyHash) {
			return errors.New("is about another issuer's certificate")
		}
		return nil
	}
	return errors.New("names the issuer by a hash that is not understood")
}

// requestFor is the DER request.
func requestFor(cert, issuer *x509.Certificate) (der []byte, err error) {
	fips140.WithoutEnforcement(func() { // SHA-1, which every responder knows; see hashOf
		der, err = ocsp.CreateRequest(cert, issuer, nil)
	})
	return der, err
}

// askOCSP has one responder answer, once for all who ask it the same at the same time. Unless the answer must be fresh, one that
// came since memory was looked at does.
func (c *Checker) askOCSP(ctx context.Context, about key, cert, issuer *x509.Certificate, responder string, fresh bool) (*Answer, error) {
	return c.Cache.asking.Do(ctx, question{c.Client, responder, about, fresh}, func(ctx context.Context) (*Answer, error) {
		if known, ok := c.Cache.memory.get(about).(*Answer); ok && !fresh && known.counts(c.Now) {
			return known, nil
		}
		answer, err := c.requestOCSP(ctx, cert, issuer, responder)
		if err == nil {
			c.Cache.remember(about, answer)
		}
		return answer, err
	})
}

// requestOCSP asks by GET, which proxies can answer, where the request is short enough; and by POST where it is not, or the
// responder has nothing usable for a GET.
func (c *Checker) requestOCSP(ctx context.Context, cert, issuer *x509.Certificate, responder string) (*Answer, error) {
	request, err := requestFor(cert, issuer)
	if err != nil {
		return nil, fmt.Errorf("no request can be made: %w", err)
	}
	get := strings.TrimSuffix(responder, "/") + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(request))
	posted := fetch.Request{URL: responder, Body: request, ContentType: "application/ocsp-request"}
	attempts := []fetch.Request{{URL: get}, posted}
	if u, err := url.Parse(responder); err != nil || u.RawQuery != "" || len(get)-len(responder) > maxGET {
		attempts = attempts[1:]
	}
	for _, attempt := range attempts {
		attempt.Accept, attempt.MaxBytes = "application/ocsp-response", maxOCSP
		var body []byte
		var answer *Answer
		if body, err = fetch.Do(ctx, c.Client, c.Budget, attempt); err == nil {
			if answer, err = parseOCSP(body, cert, issuer); err == nil {
				return answer, nil
			}
			err = fmt.Errorf("the answer %w", err)
			continue
		}
		var status *fetch.StatusError
		if !errors.As(err, &status) {
			return nil, err
		}
	}
	return nil, err
}

// remember keeps an answer that is signed and says something, unless a newer one is kept.
func (c *Cache) remember(about key, a *Answer) {
	if a.Status != Good && a.Status != Revoked {
		return
	}
	kept := *a
	c.memory.replace(about, &kept, func(old any) bool {
		was, ok := old.(*Answer)
		return !ok || !was.From.After(kept.From)
	})
}

// Staple has the certificate's responders say that it is good, one after the other and the one at index first before the
// others, until one does; it asks also those that failed a moment ago. It returns the answer, whose Raw is what to staple, and the index
// of the responder that gave it.
func (c *Checker) Staple(ctx context.Context, cert, issuer *x509.Certificate, first int) (*Answer, int, error) {
	about := certKey(cert, issuer)
	responders := services(cert.OCSPServer)
	if len(responders) == 0 {
		return nil, 0, errors.New("the certificate names no OCSP responder that can be asked over http or https")
	}
	var failures []error
	for i := range responders {
		at := (first + i) % len(responders)
		answer, err := c.askOCSP(ctx, about, cert, issuer, responders[at], true)
		switch {
		case err != nil:
		case !answer.counts(c.Now):
			err = fmt.Errorf("the answer %w", answer.period(c.Now))
		case answer.Status != Good:
			err = fmt.Errorf("the certificate is %v", answer.Status)
		default:
			return answer, at, nil
		}
		failures = append(failures, fmt.Errorf("OCSP by %s: %w", shortened(responders[at]), err))
	}
	return nil, 0, errors.Join(failures...)
}
