/* Pushes and collections at once: the protocol of the stores that keep one
   transactional database above bytes under random keys (blob.Objects). One
   digest; two repositories that share its content, or one (SAME). Comments in
   blob/collect.go and in the stores name the steps by these numbers.

   1 put       take the era, make a fresh key, write the object; then in one
               transaction refuse a key whose era is closed, make the object the
               content if there is none, link to it, and touch. If there is a
               content, look for its object first, with no transaction open: one
               that was there then is linked to, one whose object is lost is
               replaced, and another than that needs another look.
               Whoever lost, or was refused, drops the own object.
   2 stat      find the link and touch it, in one transaction; then answer. A
               mount finds it in one repository, and links and touches in the
               other.
   3 apply     check that the link is there and make the manifest visible with
               its need of the blob, in one transaction.
   4 delete    in one transaction: no touch within the lease, and no need;
               remove the link, and with the last link the content. Then
               delete the object.
   5 sweep     begin an era and close old ones, in one transaction; then list
               objects, look each one of a closed era up, and delete it unless it
               is the content.

   An atomic is a transaction of the database or a call of blob.Objects. Between
   two of them anything else may happen, and the process may die. Pushers push,
   delete and push again without end, and so do collectors; a second collector
   may be one that was thought dead. Clocks decide nothing: a lease ends at any
   moment, and a sweep closes as many eras as it likes.

   What must hold:
   SAFE      an acknowledged manifest's blob can be read until the manifest is
             deleted;
   DANGLING  whatever has a link can be read;
   PROMISE   within the lease of an answer that the blob is there, no push is
             refused;
   QUIET     whenever nothing is under way, one more collection leaves no bytes
             that no manifest needs, whatever died before;
   REPAIR    if what was durable is lost all the same (LOSS, once), who puts
             after that is answered only when the bytes are there again.

   run.sh checks that, and that it does not hold without one part: NONEEDCHECK,
   NOERA, REUSEKEY, NOLEASE, TOUCHLATE, BYTESFIRST, CHECKFIRST, NOSWEEP, NOLOOK.

   Not in the model: several digests (each is judged by itself, and a push needs
   all of its own), sessions (their keys are referred to like the content's),
   readers. A client's deletion of a blob is a 4 whose lease has just ended. */

#ifndef C
#define C 1                     /* collectors */
#endif
#ifndef KEYS
#define KEYS 4                  /* in use at once, with 0, which is none */
#endif

#ifdef SAME
#define REPOS 1
#define REPO(i) 0
#else
#define REPOS 2
#define REPO(i) (i)
#endif
#define LAST (REPOS-1)

/* The database. */
byte content;                   /* the key of the bytes, 0 if no repository has the digest */
bool link[REPOS];
bool fresh[REPOS];              /* touched within the lease */
bool acked[2];                  /* the manifest of this pusher is visible, and its need */
#define NEEDED(r) ((acked[0] && REPO(0) == (r)) || (acked[1] && REPO(1) == (r)))

/* Of an era it only matters whether it is closed: the one that a pusher has
   taken, and the one that a key carries. */
#define NONE 0
#define OPEN 1
#define CLOSED 2
byte taken[2];
bool closed[KEYS];

/* blob.Objects. A key is fresh if there is nothing under it, it is not the
   content, and no process knows it. */
bool obj[KEYS];
byte known[KEYS];               /* to so many processes */
#define FRESH(k) (!obj[k] && content != (k) && known[k] == 0)
#define FORGET(k) if :: k != 0 -> known[k]--; if :: FRESH(k) -> closed[k] = false :: else -> skip fi; k = 0 :: else -> skip fi

/* Where nothing is lost no content lacks its object, so that a look for it
   would change nothing. */
#ifdef LOSS
#ifndef NOLOOK
#define LOOK
#endif
bool loss;                      /* there was one */
byte hurt;                      /* the content whose object was lost, until it is another's */
#define HURT (hurt != 0 && content == hurt)
#define HEAL hurt = 0
#else
#define HURT false
#define HEAL skip
#endif

/* For the properties. */
bool promised[2];               /* the pusher has an answer, and its lease has not ended */
byte busy;                      /* processes in the middle of something */
#define BYTES(i) (link[REPO(i)] && (obj[content] || HURT))
#define SAFE assert(!acked[0] || BYTES(0)); assert(!acked[1] || BYTES(1))
#ifdef DANGLING
#define CHECK SAFE; assert(!link[0] || obj[content] || HURT); assert(!link[LAST] || obj[content] || HURT)
#else
#define CHECK SAFE
#endif
#define PROMISE assert(!promised[i])

inline answer() {
  fresh[REPO(i)] = true; promised[i] = true
}

proctype pusher(byte i) {
  byte g = 0; bool linked = false;
#ifdef LOSS
  byte seen = 0; bool lost = false, late = false;
#endif

start:                                                     /* the client asks, mounts, or uploads at once */
  if
  :: atomic {                                              /* 2 */
       link[REPO(i)] -> busy++;
#ifdef TOUCHLATE
       promised[i] = true; goto touch
#else
       answer(); goto apply
#endif
     }
#ifndef SAME
  :: atomic { link[1-i] -> busy++; link[i] = true; answer(); CHECK; goto apply }
#endif
  :: atomic { busy++; taken[i] = OPEN; goto key }          /* 1 */
  :: atomic { acked[i] -> acked[i] = false; goto start }   /* deletes its manifest */
  fi;

#ifdef TOUCHLATE
touch:
  atomic { if :: link[REPO(i)] -> fresh[REPO(i)] = true :: else -> skip fi; goto apply };
#endif

key:
  atomic {
#ifdef REUSEKEY
    g = 1;
#else
    if
    :: FRESH(1) -> g = 1
    :: else ->
       if
       :: FRESH(2) -> g = 2
       :: else -> if :: FRESH(KEYS-1) -> g = KEYS-1 :: else -> goto over fi
       fi
    fi;
#endif
    known[g]++; obj[g] = true;
    closed[g] = (taken[i] == CLOSED); taken[i] = NONE;
#ifdef LOSS
    late = loss
#endif
  };
publish:
  if
  :: goto over                                             /* dies */
  :: atomic {
       true ->
       if
#ifndef NOERA
       :: closed[g] -> skip                                /* is told to try again */
#else
       :: false
#endif
       :: else ->
          if
          :: content == 0 -> content = g; closed[g] = true /* or later: it matters no more */
#ifdef LOOK
          :: content != 0 && content != seen -> FORGET(seen); seen = content; known[seen]++; goto look
          :: content != 0 && content == seen && lost -> content = g; closed[g] = true; HEAL
#endif
          :: else -> skip
          fi;
          link[REPO(i)] = true; answer(); linked = true;
#ifdef LOSS
          assert(!late || obj[content]);                   /* REPAIR */
          FORGET(seen); lost = false; late = false
#endif
       fi;
       CHECK;
       if
       :: content == g -> known[g]--; g = 0; linked = false; goto apply
       :: else -> skip
       fi
     }
  fi;
  if
  :: goto over                                             /* dies */
  :: atomic {
       obj[g] = false; FORGET(g); CHECK;
       if :: linked -> linked = false; goto apply :: else -> goto over fi
     }
  fi;

#ifdef LOOK
look:
  atomic { lost = !obj[seen]; goto publish };
#endif

apply:
#ifdef CHECKFIRST
  atomic { if :: link[REPO(i)] -> skip :: else -> PROMISE; goto over fi };
  atomic { acked[i] = true; SAFE; goto over };
#else
  atomic { if :: link[REPO(i)] -> acked[i] = true; SAFE :: else -> PROMISE fi; goto over };   /* 3 */
#endif

over:
  atomic {
#ifdef LOSS
    FORGET(seen); lost = false; late = false;
#endif
    FORGET(g); promised[i] = false; taken[i] = NONE; linked = false; busy--; goto start
  }
}

/* Leases end, and disks fail. */
proctype expiry() {
  do
#ifdef SAME
  :: atomic { fresh[0] -> fresh[0] = false; promised[0] = false; promised[1] = false }
#else
  :: atomic { fresh[0] -> fresh[0] = false; promised[0] = false }
  :: atomic { fresh[1] -> fresh[1] = false; promised[1] = false }
#endif
#ifdef LOSS
  :: atomic { !loss && content != 0 -> loss = true; hurt = content; obj[content] = false }
#endif
  od
}

#ifdef NOLEASE
#define LEASED(r) false
#else
#define LEASED(r) fresh[r]
#endif
#ifdef NONEEDCHECK
#define REFUSED(r) LEASED(r)
#else
#define REFUSED(r) (LEASED(r) || NEEDED(r))
#endif

/* 4. g is what to delete then. */
inline delete(r) {
  link[r] = false; fresh[r] = false;
  if
  :: !link[0] && !link[LAST] -> g = content; known[g]++; content = 0; HEAL
  :: else -> skip
  fi
}

#define STRAY(k) (k < KEYS && obj[k] && closed[k] && content != k)

proctype collector() {
  byte g = 0, r = 0;

start:
  if
#if defined(NONEEDCHECK)
  :: atomic { link[0] && !NEEDED(0) -> busy++; r = 0; goto planned }        /* the plan looks, and nobody later */
  :: atomic { link[LAST] && !NEEDED(LAST) -> busy++; r = LAST; goto planned }
#elif defined(BYTESFIRST)
  :: atomic { link[0] && !REFUSED(0) && (REPOS == 1 || !link[LAST]) -> busy++; obj[content] = false; SAFE; r = 0; goto planned }
  :: atomic { link[LAST] && !REFUSED(LAST) && (REPOS == 1 || !link[0]) -> busy++; obj[content] = false; SAFE; r = LAST; goto planned }
#else
  :: atomic { link[0] && !REFUSED(0) -> busy++; delete(0); CHECK; goto bytes }   /* 4 */
  :: atomic { link[LAST] && !REFUSED(LAST) -> busy++; delete(LAST); CHECK; goto bytes }
#endif
#ifndef NOSWEEP
  :: atomic { taken[0] == OPEN -> taken[0] = CLOSED; goto start }           /* 5: closes, in any order */
  :: atomic { taken[1] == OPEN -> taken[1] = CLOSED; goto start }
  :: atomic { obj[1] && !closed[1] -> closed[1] = true; goto start }
  :: atomic { obj[2] && !closed[2] -> closed[2] = true; goto start }
  :: atomic { obj[KEYS-1] && !closed[KEYS-1] -> closed[KEYS-1] = true; goto start }
  :: atomic { STRAY(1) -> busy++; g = 1; known[1]++; goto bytes }           /* lists, and looks up */
  :: atomic { STRAY(2) -> busy++; g = 2; known[2]++; goto bytes }
  :: atomic { STRAY(KEYS-1) -> busy++; g = KEYS-1; known[KEYS-1]++; goto bytes }
#endif
  fi;
#if defined(NONEEDCHECK) || defined(BYTESFIRST)
planned:
  atomic { if :: link[r] && !REFUSED(r) -> delete(r); CHECK :: else -> skip fi; r = 0 };
#endif

bytes:                                                     /* or dies */
  if
  :: atomic { obj[g] = false; CHECK; goto over }
  :: goto over
  fi;
over:
  atomic { FORGET(g); busy--; goto start }
}

/* A collection when nothing else is under way, and all leases are over. */
inline quiet() {
  fresh[0] = false; fresh[LAST] = false;
  if :: link[0] && !NEEDED(0) -> delete(0); obj[g] = false; FORGET(g) :: else -> skip fi;
  if :: link[LAST] && !NEEDED(LAST) -> delete(LAST); obj[g] = false; FORGET(g) :: else -> skip fi;
#ifndef NOSWEEP
  if :: obj[1] && content != 1 -> obj[1] = false; closed[1] = false :: else -> skip fi;
  if :: obj[2] && content != 2 -> obj[2] = false; closed[2] = false :: else -> skip fi;
  if :: obj[KEYS-1] && content != KEYS-1 -> obj[KEYS-1] = false; closed[KEYS-1] = false :: else -> skip fi;
#endif
  CHECK;
  assert(!obj[1] || (content == 1 && (acked[0] || acked[1])));               /* QUIET */
  assert(!obj[2] || (content == 2 && (acked[0] || acked[1])));
  assert(!obj[KEYS-1] || (content == KEYS-1 && (acked[0] || acked[1])))
}

init {
  byte g = 0;
  atomic {
    run expiry(); run pusher(0); run pusher(1); run collector();
#if C > 1
    run collector()
#endif
  };
  do
  :: d_step { busy == 0 -> quiet() }
  od
}
