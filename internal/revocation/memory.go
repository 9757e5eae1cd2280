package revocation

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/sslstream/sslstream/internal/fetch"
)

// key names something that can be remembered.
type key [sha256.Size]byte

// keyOf hashes words so that no two different lists have the same key.
func keyOf(words ...[]byte) key {
	all := make([]byte, 0, 1024)
	for _, w := range words {
		all = binary.BigEndian.AppendUint32(all, uint32(len(w)))
		all = append(all, w...)
	}
	return sha256.Sum256(all)
}

// certKey is a certificate by its serial number and its issuer's name and key.
func certKey(cert, issuer *x509.Certificate) key {
	return keyOf([]byte("certificate"), issuer.RawSubject, issuer.RawSubjectPublicKeyInfo, cert.SerialNumber.Bytes())
}

// listKey is a CRL by where it is had and by its issuer's name and key.
func listKey(url string, issuer *x509.Certificate) key {
	return keyOf([]byte("list"), []byte(url), issuer.RawSubject, issuer.RawSubjectPublicKeyInfo)
}

// failure is a question that got no answer a moment ago.
type failure struct {
	until  time.Time
	err    error
	answer *Answer // an Unknown, which is signed but not to be kept
}

// failed is how a question failed a moment ago; nil where it did not.
func (c *Cache) failed(q question) *failure {
	if f, ok := c.memory.Get(q).(*failure); ok && time.Now().Before(f.until) {
		return f
	}
	return nil
}

// rememberFailure keeps an error that is the service's, so that it is not asked again so soon. ctx and began are those of who asked:
// that it was given up says something only once there was patience.
func (c *Cache) rememberFailure(ctx context.Context, q question, began time.Time, err error) {
	now := time.Now()
	switch {
	case errors.Is(err, fetch.ErrBudget) || errors.Is(ctx.Err(), context.Canceled):
	case ctx.Err() != nil && now.Sub(began) < patience:
	default:
		c.put(q, &failure{until: now.Add(failureMemory), err: fmt.Errorf("%w (a moment ago; not asked again so soon)", err)})
	}
}

// rememberSilence is rememberFailure for who has waited: the request is cancelled at the same moment, and does not tell why.
func (c *Cache) rememberSilence(ctx context.Context, q question, began time.Time, err error) {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		c.rememberFailure(ctx, q, began, err)
	}
}

func (c *Cache) put(k, value any) { c.memory.Put(k, value, weigh(value)) }

// weigh is about what a value takes, its entry included.
func weigh(value any) int {
	const each = 512
	switch v := value.(type) {
	case *Answer:
		return each + len(v.Raw)
	case *revocationList:
		return each + v.size()
	}
	return each
}
