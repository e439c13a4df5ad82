/* Content that moves between files while it is read, written and deleted: packs
   of examples/store/boltstore. One key, which is judged by itself; what else is in
   a pack only decides when the pack is to go, which here may be at any time.
   Comments in packs.go and reclaim.go name the steps by these numbers.

   1 write     append the bytes to the current pack, or a new one, and note the
               place as pending, with nobody between.
   2 refer     in a transaction that refuses a closed era, write the place down in the row.
   3 forget    the place is no longer pending.
   4 condemn   with nobody writing: choose packs; if the current one is among
               them, end writing to it; spare those in which something is
               pending, unless its era is closed, and then it is not pending any more.
   5 move      look the row up; if its place is in a pack that is to go, append
               the bytes to the current one, and in a transaction write the new place
               down if the row is as it was.
   6 remove    when 5 has looked at all rows, the files that were to go.
   7 read      take the place that is pending, or else that of the row; open the
               pack; if it is gone, begin again.

   An atomic is a transaction, a call of the file system, or what a lock holds
   together. The process may die between any two of them: then nothing is pending, and no pack is written to.

   What must hold:
   BYTES     the place in the row has the bytes, always;
   READ      a reader that finds a pack gone finds another place, or none;
   GONE      a deleted key has no row.

   run.sh checks that, and that it does not hold without one part: NOPENDING (4
   spares nothing), NOTURN (4 leaves the current pack the current one), EARLY (6
   comes before 5), BLIND (5 does not compare), ORDER (3 comes before 2). */

#define PACKS 6                 /* with 0, which is none; no process uses a number twice */

byte current;                   /* the pack that is written to */
byte next = 1;                  /* the number of the next one */
bool file[PACKS];               /* is there */
bool has[PACKS];                /* the bytes of the key are in it */
byte pending;                   /* the place of the key, 0 if none */
byte row;                       /* likewise */
bool closed;                    /* the key's era */
bool deleted;
byte lives;                     /* of the process: counted by each death */

#define CHECK assert(row == 0 || (file[row] && has[row])); assert(!deleted || row == 0)

/* append: the bytes are in the current pack, a new one if there is none. When
   all numbers are used, nothing more happens. */
inline append(to) {
  if
  :: current == 0 ->
     if :: next == PACKS -> goto over :: else -> skip fi;
     current = next; next++;
     file[current] = true; has[current] = false
  :: else -> skip
  fi;
  has[current] = true; to = current
}

#define ALIVE (lives == mine)

proctype writer() {
  byte p; byte mine = 0;
  atomic { append(p); pending = p };                                  /* 1 */
#ifdef ORDER
  pending = 0;
#endif
  atomic {                                                            /* 2 */
    if
    :: !ALIVE || closed -> goto over
    :: else ->
#ifdef ORDER
       row = p
#else
       if :: pending != 0 -> row = pending :: else -> goto over fi
#endif
    fi;
    CHECK
  };
  atomic { if :: ALIVE -> pending = 0 :: else -> skip fi };           /* 3 */
  if
  :: atomic { row = 0; deleted = true }                               /* a deletion, in some process */
  :: skip
  fi;
over: skip
}

proctype reclaimer() {
  byte old, to, mine; bool going[PACKS]; byte rounds = 0; byte n;
again:
  atomic {                                                            /* 4 */
    mine = lives;
    n = 1;
    do
    :: n < PACKS -> if :: file[n] -> if :: going[n] = true :: going[n] = false fi :: else -> going[n] = false fi; n++
    :: else -> break
    od;
#ifndef NOTURN
    if :: going[current] -> current = 0 :: else -> skip fi;
#endif
    going[0] = false;
#ifndef NOPENDING
    if
    :: pending != 0 -> if :: closed = true; pending = 0 :: going[pending] = false fi
    :: else -> skip
    fi;
#endif
    n = 0
  };
#ifdef EARLY
  goto remove;
move:
#endif
  atomic { if :: row != 0 && going[row] -> old = row :: else -> old = 0 fi };  /* 5 */
  if
  :: old != 0 ->
     atomic { if :: !ALIVE -> goto again :: else -> skip fi; assert(has[old]); append(to) };
     atomic {
       if
       :: !ALIVE -> goto again
#ifdef BLIND
       :: else -> row = to
#else
       :: else -> if :: row == old -> row = to :: else -> skip fi
#endif
       fi;
       CHECK
     }
  :: else -> skip
  fi;
#ifdef EARLY
  goto round;
#endif
remove:
  n = 1;
  do                                                                  /* 6 */
  :: n < PACKS ->
     atomic {
       if
       :: going[n] && ALIVE -> file[n] = false; has[n] = false; going[n] = false
       :: else -> skip
       fi;
       n++; CHECK
     }
  :: else -> break
  od;
#ifdef EARLY
  goto move;
#endif
round:
  rounds++;
  if :: rounds < 3 -> goto again :: else -> skip fi;
over: skip
}

proctype reader() {
  byte at, before; byte mine;
again:
  before = 0; mine = lives;
once:
  at = pending;                                                       /* 7 */
  if :: at == 0 -> at = row :: else -> skip fi;
  if
  :: at == 0 || !ALIVE -> skip
  :: else ->
     atomic {
       if
       :: file[at] && has[at] -> skip
       :: else -> assert(!ALIVE || at != before); before = at; goto once
       fi
     }
  fi;
  goto again
}

proctype death() {
  atomic {
    lives++; pending = 0; current = 0;
    next = PACKS;
    do
    :: next > 1 && !file[next-1] -> next--
    :: else -> break
    od;
    CHECK
  }
}

init { atomic { run writer(); run reclaimer(); run reader(); run death() } }
