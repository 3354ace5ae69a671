//! Sequences: aligners, their indexes, and what is computed from alignments.

use crate::{need, script, with_genome};
use capio_tests::Step;

/// Simulated reads of the phage, behind each other in two files.
fn simulate() -> Step {
    let body = "wgsim -S 11 -N 2500 -1 100 -2 100 lambda.fa r1.fq r2.fq > truth.txt";
    Step::sh("simulate", script(body))
        .reads(&["lambda.fa"])
        .rule(&["r1.fq", "r2.fq", "truth.txt"], "on_close", "no_update")
}

#[test]
fn bwa_samtools_and_bcftools_call_variants_of_streamed_reads() {
    need(&["wgsim", "seqtk", "bwa", "samtools", "bcftools"]);
    let index = "bwa index lambda.fa 2> $OUTSIDE/bwa; samtools faidx lambda.fa; samtools dict -u x -o lambda.dict lambda.fa";
    let trim = "seqtk trimfq r1.fq > t1.fq; seqtk trimfq r2.fq > t2.fq";
    // Takes both files as they come.
    let merge = "seqtk mergepe r1.fq r2.fq | seqtk sample -s 7 - 0.5 | seqtk seq -a - > sampled.fa; seqtk comp sampled.fa | head -n 50 > comp.txt";
    let align = "bwa mem -v 1 -t 2 -K 100000 -R '@RG\\tID:a\\tSM:l' lambda.fa t1.fq t2.fq > a.sam";
    let sort = "samtools sort --no-PG -m 1M -T tmp -o a.bam a.sam; samtools index a.bam; samtools index -c a.bam a.csi";
    let look = r#"
        samtools view --no-PG -C -T lambda.fa -o a.cram a.bam && samtools index a.cram
        samtools view --no-PG -T lambda.fa a.cram lambda_virus:1000-2000 2> $OUTSIDE/view > part.sam ||
            samtools view --no-PG -T lambda.fa a.cram > part.sam
        samtools flagstat a.bam > flagstat; samtools idxstats a.bam > idxstats
        samtools stats a.bam | grep -v '^#' > stats
        samtools fixmate --no-PG -m -u a.sam - | samtools sort --no-PG -u - | samtools markdup --no-PG - dedup.bam
        samtools merge --no-PG -s 1 -c -p -f -o merged.bam a.bam dedup.bam
        samtools depth a.bam > depth; samtools coverage a.bam > coverage
        samtools fastq -1 back1.fq -2 back2.fq -0 back0.fq -s backs.fq a.bam 2> $OUTSIDE/fastq
        samtools split --no-PG -f 'lane.%!.bam' a.bam"#;
    let call = r#"
        bcftools mpileup --no-version -d 500 -f lambda.fa -Ou a.bam 2> $OUTSIDE/pileup | bcftools call --no-version -mv -Ob -o calls.bcf
        bcftools index calls.bcf
        bcftools view --no-version -r "$(head -n 1 lambda.fa.fai | cut -f 1):5000-30000" calls.bcf > region.vcf
        bcftools norm --no-version -f lambda.fa calls.bcf -Oz -o norm.vcf.gz 2> $OUTSIDE/norm && bcftools index -t norm.vcf.gz
        bcftools isec -p isec calls.bcf norm.vcf.gz > $OUTSIDE/isec 2>&1; rm isec/README.txt; sed -i '/^##bcftools/d' isec/*.vcf
        bcftools consensus -f lambda.fa norm.vcf.gz > consensus.fa 2> $OUTSIDE/consensus
        bcftools stats calls.bcf | grep -v '^#' > calls.stats
        bcftools sort -T "$TMPDIR/sort" region.vcf 2> $OUTSIDE/sort | grep -v '^##bcftools' > sorted.vcf
        bcftools query -f '%CHROM %POS %REF %ALT\n' calls.bcf > called; test -s called"#;
    with_genome("variants")
        .step(Step::sh("index", script(index)).reads(&["lambda.fa"]).rule(
            &["lambda.fa.*", "lambda.dict"],
            "on_termination",
            "update",
        ))
        .step(simulate())
        .step(
            Step::sh("trim", script(trim))
                .reads(&["r1.fq", "r2.fq"])
                .rule(&["t1.fq", "t2.fq"], "on_close", "no_update"),
        )
        .step(
            Step::sh("merge", script(merge))
                .reads(&["r1.fq", "r2.fq"])
                .writes(&["sampled.fa", "comp.txt"]),
        )
        .step(
            Step::sh("align", script(align))
                .reads(&["lambda.fa", "lambda.fa.*", "t1.fq", "t2.fq"])
                .rule(&["a.sam"], "on_close", "no_update"),
        )
        .step(Step::sh("sort", script(sort)).reads(&["a.sam"]).rule(
            &["a.bam", "a.bam.bai", "a.csi"],
            "on_termination",
            "update",
        ))
        .step(Step::sh("look", script(look)).reads(&[
            "lambda.fa",
            "lambda.fa.fai",
            "a.bam",
            "a.bam.bai",
            "a.sam",
        ]))
        .step(Step::sh("call", script(call)).reads(&[
            "lambda.fa",
            "lambda.fa.fai",
            "a.bam",
            "a.bam.bai",
        ]))
        // It names the genome by its full path.
        .ignoring("a.cram")
        .ignoring("a.cram.crai")
        .verify();
}

#[test]
fn bowtie2_with_a_mapped_index_and_minimap2_feed_bedtools() {
    need(&[
        "bowtie2",
        "bowtie2-build",
        "minimap2",
        "bedtools",
        "samtools",
    ]);
    let build = "bowtie2-build --quiet --threads 2 lambda.fa index/lambda";
    let index = format!("mkdir -p index; {build}; bowtie2-inspect -s index/lambda > inspected");
    let bowtie = r#"
        bowtie2 --quiet --seed 1 -x index/lambda -1 r1.fq -2 r2.fq --un-conc un.%.fq -S b.sam
        bowtie2 --quiet --mm -p 2 --reorder -x index/lambda -U r1.fq 2> $OUTSIDE/bowtie > mm.sam
        gzip -n -k r1.fq; bowtie2 --quiet -x index/lambda -U r1.fq.gz > gz.sam"#;
    let minimap = "minimap2 -t 2 -d lambda.mmi lambda.fa 2> $OUTSIDE/mmi; minimap2 -t 2 -ax sr lambda.mmi r1.fq r2.fq > m.sam 2> $OUTSIDE/minimap";
    let paf = "minimap2 -c -x sr lambda.fa r1.fq 2> $OUTSIDE/paf | sort > m.paf";
    let bed = r#"
        samtools sort --no-PG -O bam -o m.bam m.sam; samtools sort --no-PG -O bam -o b.bam b.sam
        bedtools bamtobed -i m.bam > m.bed; bedtools bamtobed -i b.bam | bedtools sort -i - > b.bed
        bedtools genomecov -ibam m.bam -bg > m.bg
        bedtools intersect -a m.bed -b b.bed -c > both; bedtools merge -i m.bed > merged.bed
        bedtools makewindows -b merged.bed -w 500 > windows; bedtools coverage -a windows -b b.bed > coverage
        samtools faidx lambda.fa; bedtools getfasta -fi lambda.fa -bed windows -fo windows.fa
        bedtools bamtofastq -i b.bam -fq again.fq; bedtools closest -a windows -b merged.bed > closest
        bedtools jaccard -a m.bed -b b.bed > jaccard; test -s both"#;
    with_genome("aligners")
        .step(simulate())
        .step(
            Step::sh("index", script(&index))
                .reads(&["lambda.fa"])
                .rule(&["index/*", "index"], "on_termination", "update"),
        )
        .step(
            Step::sh("bowtie", script(bowtie))
                .reads(&["index", "index/*", "r1.fq", "r2.fq"])
                .rule(&["b.sam"], "on_close", "no_update"),
        )
        .step(
            Step::sh("minimap", script(minimap))
                .reads(&["lambda.fa", "r1.fq", "r2.fq"])
                .rule(&["m.sam"], "on_close", "no_update")
                .writes(&["lambda.mmi"]),
        )
        .step(
            Step::sh("paf", script(paf))
                .reads(&["lambda.fa", "r1.fq"])
                .writes(&["m.paf"]),
        )
        .step(Step::sh("bed", script(bed)).reads(&["lambda.fa", "m.sam", "b.sam"]))
        .verify();
}

/// The database of names is LMDB's: a mapped file with locks.
#[test]
fn blast_searches_a_database_that_another_step_makes() {
    need(&["makeblastdb", "blastn", "blastdbcmd", "seqtk", "wgsim"]);
    let cut = "awk '/^>/ { next } { s = s $0 } END { for (i = 1; i < length(s); i += 900) printf(\">p%d\\n%s\\n\", i, substr(s, i, 1000)) }' lambda.fa > pieces.fa";
    let build = "makeblastdb -in pieces.fa -dbtype nucl -parse_seqids -title pieces -out db/pieces > $OUTSIDE/made; blastdbcmd -db db/pieces -entry all > all.fa; blastdbcmd -db db/pieces -entry p901 > one.fa";
    let search = r#"
        seqtk seq -a r1.fq | head -n 400 > query.fa
        blastn -task megablast -db db/pieces -query query.fa -outfmt 6 -num_threads 2 > hits.tsv
        blastn -db db/pieces -query query.fa -outfmt 5 -max_target_seqs 5 > hits.xml 2> $OUTSIDE/warned
        blastn -db db/pieces -query query.fa -outfmt 11 -out hits.asn && blast_formatter -archive hits.asn -outfmt 7 > hits.txt
        test -s hits.tsv"#;
    let build = format!("mkdir -p db; {cut}; {build}");
    with_genome("blast")
        .step(simulate())
        .step(
            Step::sh("build", script(&build))
                .reads(&["lambda.fa"])
                .rule(
                    &["db", "db/*", "pieces.fa", "all.fa", "one.fa"],
                    "on_termination",
                    "update",
                ),
        )
        .step(
            Step::sh("search", script(search))
                .reads(&["db", "db/*", "r1.fq"])
                .writes(&["query.fa", "hits.*"]),
        )
        // The database tells when it was made.
        .ignoring("db")
        .verify();
}
